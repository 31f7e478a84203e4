//! Tests of the codec: each property of docs/format and each golden form, in one binary so that it is linked once.
//!
//! Not here: how processes use the forms (tests of node and gateway).

#[cfg(test)]
mod cutting;
#[cfg(test)]
mod decoders;
#[cfg(test)]
mod digests;
#[cfg(test)]
mod erasure;
#[cfg(test)]
mod fragments;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod seals;
#[cfg(test)]
mod stripes;
