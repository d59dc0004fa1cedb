//! The vCPU threads: one each, started parked, run and parked together.

mod exit;

use std::os::unix::thread::JoinHandleExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;

use kvm_ioctls::VcpuFd;
use parking_lot::{Condvar, Mutex, MutexGuard};
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

pub use exit::{Buses, Exit, Failure};

/// What a vCPU reports when it can't go on; it then waits for a reset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The guest triple-faulted.
    TripleFault,
    /// KVM can't go on.
    Failed {
        /// Why, with where the guest was.
        reason: String,
    },
}

/// Why the vCPU threads could not be had.
#[derive(Debug, thiserror::Error)]
pub enum VcpuError {
    /// The signal that takes a vCPU out of the guest could not be set up.
    #[error("the signal handler that interrupts vCPUs could not be installed")]
    Signal(#[source] std::io::Error),
    /// A thread could not be started.
    #[error("the thread of vCPU {index} could not be started")]
    Thread {
        /// Which vCPU.
        index: usize,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
}

/// All vCPUs of the machine.
pub struct Vcpus {
    gate: Arc<Gate>,
    threads: Vec<Thread>,
}

struct Thread {
    vcpu: Arc<Mutex<VcpuFd>>,
    immediate_exit: ImmediateExit,
    handle: Option<JoinHandle<()>>,
}

/// What every vCPU thread is to do.
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

struct GateState {
    wanted: Wanted,
    /// How often the vCPUs were let go: one that stopped itself waits for the next time.
    round: u64,
    /// How many threads are out of the guest.
    parked: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Park,
    Run,
    End,
}

impl Gate {
    /// Waits until the vCPU may run; `None` if the thread is to end. `seen` is the round that it
    /// stopped in by itself, if it did.
    fn wait(&self, stopped_in: Option<u64>) -> Option<u64> {
        let mut state = self.state.lock();
        state.parked += 1;
        self.changed.notify_all();
        let round = loop {
            match state.wanted {
                Wanted::End => break None,
                Wanted::Run if stopped_in != Some(state.round) => break Some(state.round),
                Wanted::Run | Wanted::Park => self.changed.wait(&mut state),
            }
        };
        state.parked -= 1;
        round
    }
}

/// The byte of `kvm_run` that keeps the next `KVM_RUN` from entering the guest.
///
/// It lives in the mapping of the `VcpuFd`, which every holder of this keeps beside it.
struct ImmediateExit(*mut u8);

// SAFETY: the byte is only accessed as an atomic, from any thread.
unsafe impl Send for ImmediateExit {}
// SAFETY: as above.
unsafe impl Sync for ImmediateExit {}

impl ImmediateExit {
    fn of(vcpu: &mut VcpuFd) -> Self {
        Self(&raw mut vcpu.get_kvm_run().immediate_exit)
    }

    fn set(&self, value: bool) {
        // SAFETY: the pointer is valid for as long as the `VcpuFd` that the holder keeps; the
        // kernel reads the byte at any time, which is what an atomic store is for.
        unsafe { AtomicU8::from_ptr(self.0) }.store(u8::from(value), Ordering::SeqCst);
    }
}

impl Vcpus {
    /// Starts a thread named `vcpuN` for each of `vcpus`, all parked. `stopped` is called on such a
    /// thread when its vCPU can't go on.
    ///
    /// # Errors
    /// [`VcpuError`].
    pub fn start(
        vcpus: Vec<VcpuFd>,
        buses: &Arc<Buses>,
        stopped: &Arc<dyn Fn(usize, Stop) + Send + Sync>,
    ) -> Result<Self, VcpuError> {
        register_signal_handler(SIGRTMIN(), ignore)
            .map_err(|error| VcpuError::Signal(error.into()))?;
        let state = GateState {
            wanted: Wanted::Park,
            round: 0,
            parked: 0,
        };
        let gate = Arc::new(Gate {
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let mut all = Self {
            gate,
            threads: Vec::with_capacity(vcpus.len()),
        };
        for (index, mut vcpu) in vcpus.into_iter().enumerate() {
            let immediate_exit = ImmediateExit::of(&mut vcpu);
            let vcpu = Arc::new(Mutex::new(vcpu));
            let worker = Worker {
                index,
                own_exit: ImmediateExit(immediate_exit.0),
                vcpu: Arc::clone(&vcpu),
                buses: Arc::clone(buses),
                gate: Arc::clone(&all.gate),
                stopped: Arc::clone(stopped),
            };
            let handle = std::thread::Builder::new()
                .name(format!("vcpu{index}"))
                .spawn(move || worker.work())
                .map_err(|source| VcpuError::Thread { index, source })?;
            all.threads.push(Thread {
                vcpu,
                immediate_exit,
                handle: Some(handle),
            });
        }
        Ok(all)
    }

    /// Lets every vCPU run.
    pub fn run(&self) {
        let mut state = self.gate.state.lock();
        state.wanted = Wanted::Run;
        state.round += 1;
        self.gate.changed.notify_all();
    }

    /// Takes every vCPU out of the guest and returns once all are, with no access half done.
    pub fn park(&self) {
        self.gate.state.lock().wanted = Wanted::Park;
        self.kick_until(|state| state.parked == self.threads.len());
    }

    /// The vCPUs, for reading and setting their state; only while parked.
    pub fn parked(&self) -> impl Iterator<Item = MutexGuard<'_, VcpuFd>> {
        self.threads.iter().map(|thread| thread.vcpu.lock())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.threads.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.threads.is_empty()
    }

    /// Interrupts the vCPUs until `done`: a vCPU that was about to enter the guest sees
    /// `immediate_exit`, one that is inside gets the signal.
    fn kick_until(&self, done: impl Fn(&GateState) -> bool) {
        let mut state = self.gate.state.lock();
        while !done(&state) {
            for thread in &self.threads {
                thread.kick();
            }
            let patience = std::time::Duration::from_millis(20);
            self.gate.changed.wait_for(&mut state, patience);
        }
    }
}

impl Thread {
    fn kick(&self) {
        self.immediate_exit.set(true);
        if let Some(handle) = &self.handle {
            // SAFETY: the thread has not been joined, so its id is valid; the signal has a handler.
            unsafe { libc::pthread_kill(handle.as_pthread_t(), SIGRTMIN()) };
        }
    }
}

impl Drop for Vcpus {
    fn drop(&mut self) {
        self.gate.state.lock().wanted = Wanted::End;
        self.gate.changed.notify_all();
        for thread in &mut self.threads {
            thread.kick();
            if let Some(handle) = thread.handle.take() {
                // A thread that panicked has already said so.
                let _ = handle.join();
            }
        }
    }
}

/// The signal's only purpose is to make `KVM_RUN` return.
extern "C" fn ignore(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

struct Worker {
    index: usize,
    vcpu: Arc<Mutex<VcpuFd>>,
    own_exit: ImmediateExit,
    buses: Arc<Buses>,
    gate: Arc<Gate>,
    stopped: Arc<dyn Fn(usize, Stop) + Send + Sync>,
}

impl Worker {
    fn work(&self) {
        let mut stopped_in = None;
        while let Some(round) = self.gate.wait(stopped_in) {
            stopped_in = None;
            if let Some(stop) = self.run_until_interrupted() {
                stopped_in = Some(round);
                (self.stopped)(self.index, stop);
            }
        }
    }

    /// Runs the guest. Whoever interrupts a vCPU sets its `immediate_exit`, so that an access
    /// that was under way is completed by one more `KVM_RUN` before the vCPU parks.
    fn run_until_interrupted(&self) -> Option<Stop> {
        let mut vcpu = self.vcpu.lock();
        loop {
            match exit::run(&mut vcpu, &self.buses) {
                Exit::Handled => {}
                Exit::Interrupted => {
                    self.own_exit.set(false);
                    if self.gate.state.lock().wanted != Wanted::Run {
                        return None;
                    }
                }
                Exit::Shutdown => return Some(Stop::TripleFault),
                Exit::Failed(failure) => {
                    return Some(Stop::Failed {
                        reason: describe(&vcpu, failure),
                    });
                }
            }
        }
    }
}

/// The failure and where the guest was, for a bug report.
fn describe(vcpu: &VcpuFd, failure: Failure) -> String {
    match (vcpu.get_regs(), vcpu.get_sregs()) {
        (Ok(regs), Ok(sregs)) => format!(
            "{failure} (rip {:#x}, cs {:#x} based at {:#x}, cr0 {:#x}, cr3 {:#x}, cr4 {:#x}, efer {:#x})",
            regs.rip, sregs.cs.selector, sregs.cs.base, sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer
        ),
        _ => failure.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use caraway_devices::BusDevice;
    use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

    use super::*;
    use crate::kvm::{GuestSpace, Host};

    /// Tells a test what the guest wrote.
    struct Told(Mutex<mpsc::Sender<u8>>);

    impl BusDevice for Told {
        fn read(&self, _offset: u64, data: &mut [u8]) {
            data.fill(0x5a);
        }

        fn write(&self, _offset: u64, data: &[u8]) {
            let _ = self.0.lock().send(data[0]);
        }
    }

    /// One vCPU in real mode at `code`, a port 0x10 that tells, and what a stopped vCPU said.
    fn start(code: &[u8]) -> (Vcpus, mpsc::Receiver<u8>, mpsc::Receiver<Stop>) {
        start_with(code, |_| ())
    }

    fn start_with(
        code: &[u8],
        change: impl Fn(&mut kvm_bindings::kvm_sregs),
    ) -> (Vcpus, mpsc::Receiver<u8>, mpsc::Receiver<Stop>) {
        let host = Host::open("/dev/kvm").unwrap();
        let vm = host.create_vm().unwrap();
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap();
        memory.write_slice(code, GuestAddress(0x1000)).unwrap();
        let space = GuestSpace::new(Arc::clone(&vm));
        let ram = caraway_arch::AddressRange::new(0, 0x10000).unwrap();
        space.add_ram(&memory, &[ram]).unwrap();
        let vcpu = vm.create_vcpu(0).unwrap();
        let mut sregs = vcpu.get_sregs().unwrap();
        (sregs.cs.base, sregs.cs.selector) = (0, 0);
        change(&mut sregs);
        vcpu.set_sregs(&sregs).unwrap();
        let mut regs = vcpu.get_regs().unwrap();
        regs.rip = 0x1000;
        vcpu.set_regs(&regs).unwrap();
        let (tell, told) = mpsc::channel();
        let (tell_stop, stopped) = mpsc::channel();
        let buses = Arc::new(Buses::default());
        buses
            .ports
            .insert(0x10, 1, Arc::new(Told(Mutex::new(tell))))
            .unwrap();
        let tell_stop = Mutex::new(tell_stop);
        let on_stop: Arc<dyn Fn(usize, Stop) + Send + Sync> = Arc::new(move |_, stop| {
            // The slots must outlive the vCPU.
            let _ = &space;
            let _ = tell_stop.lock().send(stop);
        });
        (
            Vcpus::start(vec![vcpu], &buses, &on_stop).unwrap(),
            told,
            stopped,
        )
    }

    #[test]
    fn ports_reach_their_device() {
        // in al, 0x10; out 0x10, al; hlt
        let (vcpus, told, _stopped) = start(&[0xe4, 0x10, 0xe6, 0x10, 0xf4]);

        vcpus.run();

        assert_eq!(told.recv().unwrap(), 0x5a);
    }

    #[test]
    fn a_halted_vcpu_parks_and_goes_on() {
        // out 0x10, al; hlt
        let (vcpus, told, _stopped) = start(&[0xe6, 0x10, 0xf4]);
        vcpus.run();
        told.recv().unwrap();

        vcpus.park();
        let rip = vcpus.parked().next().unwrap().get_regs().unwrap().rip;
        vcpus.run();

        // Parked in the halt, or right before it.
        assert!(rip == 0x1002 || rip == 0x1003, "{rip:#x}");
    }

    #[test]
    fn a_spinning_vcpu_parks_with_its_access_done() {
        // 1: in al, 0x10; jmp 1
        let (vcpus, _told, _stopped) = start(&[0xe4, 0x10, 0xeb, 0xfc]);

        for _ in 0..100 {
            vcpus.run();
            vcpus.park();
            let regs = vcpus.parked().next().unwrap().get_regs().unwrap();
            assert!(regs.rip == 0x1000 || regs.rax & 0xff == 0x5a, "{regs:?}");
        }
    }

    #[test]
    fn a_triple_fault_is_reported_once() {
        // ud2 in protected mode without an interrupt table: no handler, three times over.
        let (vcpus, _told, stopped) = start_with(&[0x0f, 0x0b], |sregs| {
            sregs.cr0 |= 1;
            sregs.idt.limit = 0;
            for segment in [&mut sregs.cs, &mut sregs.ss, &mut sregs.ds] {
                (segment.limit, segment.g, segment.db, segment.s) = (0xffff_ffff, 1, 1, 1);
                (segment.type_, segment.present, segment.dpl) = (3, 1, 0);
            }
            (sregs.cs.type_, sregs.cs.selector) = (0xb, 8);
        });

        vcpus.run();

        assert_eq!(stopped.recv().unwrap(), Stop::TripleFault);
        vcpus.park();
    }
}
