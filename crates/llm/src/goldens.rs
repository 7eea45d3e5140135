//! Goldens: what every vendor gets, and what streams become. The data lies in `testdata/`.

mod streams;
mod vendors;
