//! Shift.
