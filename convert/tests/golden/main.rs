//! The converter against the independent vectors, on the ResNet-8 of `tests/fixtures/network`.

#![allow(clippy::unwrap_used)]

mod common;
mod convert;
mod equalise;
mod export;
mod fold;
mod import;
mod mixed;
mod quantize;
mod range;
mod run;
