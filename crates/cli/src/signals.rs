//! Ctrl-C and termination: the first asks the run to save and stop, the second ends it at once.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::Result;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Whether, and how, the user asked to stop.
#[derive(Clone)]
pub struct Signals(Arc<AtomicUsize>);

impl Signals {
    pub fn listen() -> Result<Self> {
        let received = Arc::new(AtomicUsize::new(0));
        for signal in [SIGINT, SIGTERM] {
            let armed = Arc::new(AtomicBool::new(false));
            // In this order the first signal arms the shutdown that the second one makes.
            flag::register_conditional_shutdown(signal, 128 + signal, armed.clone())?;
            flag::register(signal, armed)?;
            flag::register_usize(signal, received.clone(), signal as usize)?;
        }
        Ok(Self(received))
    }

    pub fn stop(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    /// 130 after Ctrl-C, 143 after termination, as a shell expects.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(128 + self.0.load(Ordering::Relaxed) as u8)
    }
}
