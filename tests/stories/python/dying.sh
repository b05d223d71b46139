#!/bin/sh
# In place of a Python that starts well, then dies: status 0, the length, a name.
printf '\000\004\000\000\000\000\000\000\000fake'
sleep 0.2
echo 'no memory is left' >&2
exit 3
