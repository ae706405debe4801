//! Backup and restore of one tenant.
//!
//! A backup is two files at a destination: an object, sealed so that the job which wrote it cannot read it back, and a
//! signed manifest that says what the object holds and what it follows. [`sections`] is what is in the object, [`seal`]
//! how it is compressed and encrypted, [`manifest`] what is said of it, and [`vault`] where both lie. [`take`] makes one,
//! [`restore`] brings the bank back, and [`verify`] proves that it would. [`job`] is what a job is told, [`survey`] what it
//! finds, and [`report`] what it says.

pub mod copy;
pub mod job;
pub mod manifest;
pub mod progress;
pub mod prune;
pub mod report;
pub mod restore;
pub mod rows;
pub mod scratch;
pub mod seal;
pub mod sections;
pub mod sha256;
pub mod status;
pub mod survey;
pub mod take;
pub mod vault;
pub mod verify;
