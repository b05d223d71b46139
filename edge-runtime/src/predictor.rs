//! Bundle + engine + picture → prediction.
