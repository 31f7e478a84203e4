//! The end of a process that is to be started again as it is: what it failed on may be over by then, and only a start finds that out.
//!
//! A log or a store that failed to write is not trusted with another word before it was opened anew and read back, so no replica of
//! the process can go on; nothing that it did not keep was acknowledged. A full file system or a cable is the common reason.
//! Place in the picture: `serve` ends with it, systemd starts every process again (deploy/systemd), `holdfast dev --processes` those
//! that end with its code.
//! Decision 0054. Not here: ends that an operator must look at first, which have the code of any failure.

use std::error::Error;
use std::fmt;

/// The exit code of such an end: `EX_TEMPFAIL` of sysexits.h.
pub const EXIT_CODE: u8 = 75;

/// Why the process ends.
#[derive(Debug)]
pub struct StartAgain(pub String);

impl fmt::Display for StartAgain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the metadata on this host cannot be written any more ({}); the process ends and goes on with what is on the disk once it \
             is started again, which systemd does by itself; see that the disk has room and is well",
            self.0
        )
    }
}

impl Error for StartAgain {}
