# Sourced by the scripts beside it: Debian's packages of both architectures, from an index of their own in FOLDER, so that
# the system's stays as it is.
#
#   arm64_index FOLDER            makes the index, and `options` for apt
#   arm64_download FOLDER NAME…   brings packages (NAME:ARCHITECTURE) there and unpacks them into FOLDER/root

arm64_index() {
  mkdir -p "$1"/{lists/partial,cache/archives/partial,packages,root}
  options=(-oAPT::Architecture=amd64 -oAPT::Architectures::=amd64 -oAPT::Architectures::=arm64
    -oDir::State::Lists="$1/lists" -oDir::Cache="$1/cache")
  apt-get "${options[@]}" update -qq
}

arm64_download() {
  local work=$1 package; shift
  (cd "$work/packages" && apt-get "${options[@]}" download -qq "$@")
  for package in "$work"/packages/*.deb; do dpkg -x "$package" "$work/root"; done
}
