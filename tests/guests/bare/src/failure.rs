//! Why a test failed, without an allocator.

use core::fmt::{self, Write};

/// What a test ends with.
pub type Outcome = Result<(), Why>;

/// The reason, cut to what fits.
pub struct Why {
    text: [u8; 112],
    length: usize,
}

/// A reason out of `format_args!`.
pub fn why(arguments: fmt::Arguments) -> Why {
    let mut why = Why {
        text: [0; 112],
        length: 0,
    };
    let _ = why.write_fmt(arguments);
    why
}

impl Write for Why {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (to, from) in self.text[self.length..].iter_mut().zip(text.bytes()) {
            *to = from;
            self.length += 1;
        }
        Ok(())
    }
}

impl fmt::Display for Why {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str(core::str::from_utf8(&self.text[..self.length]).unwrap_or("?"))
    }
}

/// Leaves the test with a reason unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($argument:tt)*) => {
        if !$condition {
            return Err($crate::failure::why(format_args!($($argument)*)));
        }
    };
}
