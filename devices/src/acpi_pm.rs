//! ACPI fixed hardware of the ICH9: power management ports and the APM ports
//! (ACPI 6.4 chapter 4.8; ICH9 datasheet 13.8.3 and 13.7.1).
//!
//! | offset | register |
//! |---|---|
//! | 0x00 | PM1_STS, 16 bits |
//! | 0x02 | PM1_EN, 16 bits |
//! | 0x04 | PM1_CNT, 32 bits |
//! | 0x08 | PM_TMR, 24 bits at 3,579,545 Hz, with zeros above (the FADT's TMR_VAL_EXT is clear) |
//! | 0x20 | GPE0_STS, 8 bytes |
//! | 0x28 | GPE0_EN, 8 bytes |
//! | 0x30 | SMI_EN, 32 bits; APMC_EN is set and locked, which tells firmware to leave SMM alone |
//! | 0x60 | TCO, 32 bytes that are only kept |
//!
//! The sleep types that `_S3`, `_S4` and `_S5` must give are [`SLP_TYP_S3`], [`SLP_TYP_S4`] and
//! [`SLP_TYP_S5`]. The SCI is GSI [`SCI_GSI`], level-triggered and active high here. Writing
//! [`ACPI_ENABLE`] to the port [`SMI_CMD_PORT`] switches to ACPI mode.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::bus::{BusDevice, Registers};
use crate::clock::{Clock, Nanos, Timeline, Timer, TimerClient};
use crate::interrupt::{InterruptLine, Wire};
use crate::state::{StateError, Stateful};
use crate::system::{SystemControl, SystemEvent};

/// The system control interrupt.
pub const SCI_GSI: u32 = 9;
/// Sleep type of `_S5`: off.
pub const SLP_TYP_S5: u8 = 0;
/// Sleep type of `_S3`: asleep, with memory kept.
pub const SLP_TYP_S3: u8 = 1;
/// Sleep type of `_S4`: off, with memory on a disk.
pub const SLP_TYP_S4: u8 = 2;
/// The SMI command port: SMI_CMD of the FADT.
pub const SMI_CMD_PORT: u16 = 0xb2;
/// Written to [`SMI_CMD_PORT`], switches to ACPI mode.
pub const ACPI_ENABLE: u8 = 0x02;
/// Written to [`SMI_CMD_PORT`], leaves ACPI mode.
pub const ACPI_DISABLE: u8 = 0x03;
/// Frequency of the power management timer in Hz (ACPI 4.8.2.1).
pub const PM_TIMER_HZ: u64 = 3_579_545;

const PM1_STS: u64 = 0x00;
const PM1_EN: u64 = 0x02;
const PM1_CNT: u64 = 0x04;
const PM_TMR: u64 = 0x08;
const GPE0_STS: u64 = 0x20;
const GPE0_EN: u64 = 0x28;
const SMI_EN: u64 = 0x30;
const TCO: u64 = 0x60;
/// How many ports there are.
const PORTS: u64 = 0x80;
/// Bytes of GPE0_STS, and as many of GPE0_EN.
const GPE_BYTES: usize = 8;
const TCO_BYTES: usize = 32;

/// PM1: the timer's bit 23 changed.
const TMR: u16 = 1 << 0;
/// PM1: the global lock was released.
const GBL: u16 = 1 << 5;
/// PM1: the power button was pressed.
const PWRBTN: u16 = 1 << 8;
/// PM1: the sleep button was pressed.
const SLPBTN: u16 = 1 << 9;
/// PM1: the RTC's alarm rang.
const RTC: u16 = 1 << 10;
/// PM1_STS only: the machine woke up.
const WAK: u16 = 1 << 15;
const PM1_STS_BITS: u16 = TMR | 1 << 4 | GBL | PWRBTN | SLPBTN | RTC | WAK;
const PM1_EN_BITS: u16 = TMR | GBL | PWRBTN | SLPBTN | RTC;

/// PM1_CNT: interrupts are SCIs, not SMIs.
const SCI_EN: u16 = 1 << 0;
/// PM1_CNT: go to sleep as SLP_TYP says. Reads as 0.
const SLP_EN: u16 = 1 << 13;
const SLP_TYP_SHIFT: u32 = 10;
/// PM1_CNT: what reads back: SCI_EN, BM_RLD and SLP_TYP.
const PM1_CNT_BITS: u16 = SCI_EN | 1 << 1 | 7 << SLP_TYP_SHIFT;

/// SMI_EN: writes to the APM port raise an SMI.
const APMC_EN: u32 = 1 << 5;

/// What shows of the timer.
const TIMER_BITS: u64 = (1 << 24) - 1;
/// Timer ticks in which TMR_STS is set once: the highest bit that shows changes.
const HALF_WRAP: u64 = 1 << 23;
const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// What a snapshot keeps of an [`AcpiPm`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcpiPmState {
    pm1_sts: u16,
    pm1_en: u16,
    pm1_cnt: u16,
    gpe_sts: [u8; GPE_BYTES],
    gpe_en: [u8; GPE_BYTES],
    smi_en: u32,
    tco: [u8; TCO_BYTES],
    apm: [u8; 2],
    /// Timer count whose bit 23 was last looked at, so that each change is reported once.
    seen: u64,
    /// The device's time when this was saved.
    now: Nanos,
}

impl AcpiPmState {
    const fn new() -> Self {
        Self {
            pm1_sts: 0,
            pm1_en: 0,
            pm1_cnt: 0,
            gpe_sts: [0; GPE_BYTES],
            gpe_en: [0; GPE_BYTES],
            smi_en: APMC_EN,
            tco: [0; TCO_BYTES],
            apm: [0; 2],
            seen: 0,
            now: 0,
        }
    }
}

/// The power management ports, 0x80 of them from PMBASE.
pub struct AcpiPm {
    state: AcpiPmState,
    time: Timeline,
    sci: Wire,
    system: Arc<dyn SystemControl>,
}

impl AcpiPm {
    /// Ports that drive `sci`, count time by `clock` and report sleep to `system`. `timer` must
    /// call [`TimerClient::expired`].
    #[must_use]
    pub fn new(
        clock: Arc<dyn Clock>,
        timer: Arc<dyn Timer>,
        sci: Arc<dyn InterruptLine>,
        system: Arc<dyn SystemControl>,
    ) -> Self {
        let mut pm = Self {
            state: AcpiPmState::new(),
            time: Timeline::new(clock, timer),
            sci: Wire::new(sci),
            system,
        };
        pm.state.seen = pm.ticks();
        pm
    }

    /// Presses and releases the power button. `false` if the guest does not listen to it.
    pub fn power_button(&mut self) -> bool {
        self.raise(PWRBTN)
    }

    /// The RTC's alarm rang: wakes a guest that listens.
    pub fn rtc_alarm(&mut self) -> bool {
        self.raise(RTC)
    }

    fn raise(&mut self, event: u16) -> bool {
        let listened = self.state.pm1_en & event != 0;
        if listened {
            self.state.pm1_sts |= event;
            self.update();
        }
        listened
    }

    /// The machine goes on after [`SystemEvent::Sleep`]: tells the guest that it slept.
    pub fn wake(&mut self) {
        self.state.pm1_sts |= WAK;
        self.update();
    }

    /// Reports general purpose event `number`, 0 to 63; others are ignored. The guest clears it.
    pub fn general_event(&mut self, number: u8) {
        if let Some(byte) = self.state.gpe_sts.get_mut(usize::from(number / 8)) {
            *byte |= 1 << (number % 8);
            self.update();
        }
    }

    /// Whether the guest has switched to ACPI mode.
    #[must_use]
    pub fn is_acpi_mode(&self) -> bool {
        self.state.pm1_cnt & SCI_EN != 0
    }

    fn ticks(&self) -> u64 {
        let ticks = u128::from(self.time.now()) * u128::from(PM_TIMER_HZ) / NANOS_PER_SECOND;
        ticks as u64
    }

    /// Sets TMR_STS if bit 23 of the timer changed since it was looked at.
    fn look_at_timer(&mut self) {
        let now = self.ticks();
        if now / HALF_WRAP != self.state.seen / HALF_WRAP {
            self.state.pm1_sts |= TMR;
        }
        self.state.seen = now;
    }

    /// Drives the SCI and arms the timer as the registers say.
    fn update(&mut self) {
        let raised = self.is_raised();
        self.sci.set(raised);
        let state = &self.state;
        let waits = state.pm1_en & TMR != 0 && state.pm1_sts & TMR == 0;
        let deadline = waits.then(|| self.next_change());
        self.time.arm(deadline);
    }

    /// Whether an enabled event waits for the guest.
    fn is_raised(&self) -> bool {
        let state = &self.state;
        let mut gpes = state.gpe_sts.iter().zip(&state.gpe_en);
        state.pm1_sts & state.pm1_en != 0 || gpes.any(|(sts, en)| sts & en != 0)
    }

    /// When bit 23 of the timer changes next.
    fn next_change(&self) -> Nanos {
        let tick =
            u128::from((self.state.seen / HALF_WRAP).saturating_add(1)) * u128::from(HALF_WRAP);
        let at = (tick * NANOS_PER_SECOND).div_ceil(u128::from(PM_TIMER_HZ));
        Nanos::try_from(at).unwrap_or(Nanos::MAX)
    }

    /// The byte of register block `at`, with the timer at `ticks`.
    fn byte(&self, at: u64, ticks: u32) -> u8 {
        let state = &self.state;
        let of = |base: u64, bytes: &[u8]| bytes.get((at - base) as usize).copied().unwrap_or(0);
        match at {
            PM1_STS..PM1_EN => of(PM1_STS, &state.pm1_sts.to_le_bytes()),
            PM1_EN..PM1_CNT => of(PM1_EN, &state.pm1_en.to_le_bytes()),
            PM1_CNT..PM_TMR => of(PM1_CNT, &state.pm1_cnt.to_le_bytes()),
            PM_TMR..0x0c => of(PM_TMR, &ticks.to_le_bytes()),
            GPE0_STS..GPE0_EN => of(GPE0_STS, &state.gpe_sts),
            GPE0_EN..SMI_EN => of(GPE0_EN, &state.gpe_en),
            SMI_EN..0x34 => of(SMI_EN, &state.smi_en.to_le_bytes()),
            TCO..PORTS => of(TCO, &state.tco),
            _ => 0,
        }
    }

    fn write_byte(&mut self, at: u64, value: u8) {
        let state = &mut self.state;
        let shift = 8 * (at % 2) as u32;
        let wide = u16::from(value) << shift;
        let lane = 0xff << shift;
        match at {
            PM1_STS..PM1_EN => state.pm1_sts &= !wide,
            PM1_EN..PM1_CNT => {
                state.pm1_en = state.pm1_en & !lane | wide & lane & PM1_EN_BITS;
            }
            PM1_CNT..0x06 => {
                state.pm1_cnt = state.pm1_cnt & !lane | wide & lane & PM1_CNT_BITS;
                if wide & SLP_EN != 0 {
                    self.sleep();
                }
            }
            GPE0_STS..GPE0_EN => state.gpe_sts[(at - GPE0_STS) as usize % GPE_BYTES] &= !value,
            GPE0_EN..SMI_EN => state.gpe_en[(at - GPE0_EN) as usize % GPE_BYTES] = value,
            SMI_EN..0x34 => {
                let shift = 8 * (at - SMI_EN) as u32;
                let lane = 0xff << shift;
                state.smi_en = state.smi_en & !lane | u32::from(value) << shift | APMC_EN;
            }
            TCO..PORTS => state.tco[(at - TCO) as usize % TCO_BYTES] = value,
            _ => {}
        }
    }

    fn sleep(&self) {
        let kind = (self.state.pm1_cnt >> SLP_TYP_SHIFT) as u8 & 7;
        match kind {
            SLP_TYP_S5 | SLP_TYP_S4 => self.system.raise(SystemEvent::PowerOff),
            SLP_TYP_S3 => self.system.raise(SystemEvent::Sleep),
            _ => tracing::debug!(kind, "the guest asked for a sleep type that there is not"),
        }
    }

    fn apm_command(&mut self, command: u8) {
        self.state.apm[0] = command;
        match command {
            ACPI_ENABLE => self.state.pm1_cnt |= SCI_EN,
            ACPI_DISABLE => self.state.pm1_cnt &= !SCI_EN,
            _ => {}
        }
        self.update();
    }
}

impl Registers for AcpiPm {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        self.look_at_timer();
        let ticks = (self.state.seen & TIMER_BITS) as u32;
        for (at, byte) in (offset..).zip(data) {
            *byte = self.byte(at, ticks);
        }
        self.update();
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.look_at_timer();
        for (at, &byte) in (offset..).zip(data) {
            self.write_byte(at, byte);
        }
        self.update();
    }
}

impl TimerClient for AcpiPm {
    fn expired(&mut self) {
        self.time.rang();
        self.look_at_timer();
        self.update();
    }
}

impl Stateful for AcpiPm {
    type State = AcpiPmState;
    const KIND: &'static str = "acpi-pm";
    const VERSION: u32 = 1;

    fn save(&self) -> AcpiPmState {
        AcpiPmState {
            now: self.time.now(),
            ..self.state.clone()
        }
    }

    fn restore(&mut self, state: AcpiPmState) -> Result<(), StateError> {
        self.time.resume_at(state.now);
        self.state = AcpiPmState {
            pm1_sts: state.pm1_sts & PM1_STS_BITS,
            pm1_en: state.pm1_en & PM1_EN_BITS,
            pm1_cnt: state.pm1_cnt & PM1_CNT_BITS,
            smi_en: state.smi_en | APMC_EN,
            ..state
        };
        self.sci.force(self.is_raised());
        self.update();
        Ok(())
    }

    fn reset(&mut self) {
        let seen = self.state.seen;
        self.state = AcpiPmState {
            seen,
            ..AcpiPmState::new()
        };
        self.sci.force(false);
        self.update();
    }
}

/// The APM ports 0xb2 (command) and 0xb3 (scratch) of an [`AcpiPm`].
pub struct ApmPorts(pub Arc<Mutex<AcpiPm>>);

impl ApmPorts {
    /// How many ports there are, from [`SMI_CMD_PORT`].
    pub const LEN: u16 = 2;
}

impl BusDevice for ApmPorts {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let apm = self.0.lock().state.apm;
        for (at, byte) in (offset as usize..).zip(data) {
            *byte = apm.get(at).copied().unwrap_or(0xff);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut pm = self.0.lock();
        for (at, &byte) in (offset..).zip(data) {
            match at {
                0 => pm.apm_command(byte),
                1 => pm.state.apm[1] = byte,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{FakeClock, FakeTimer};
    use crate::interrupt::FakeLine;
    use crate::system::FakeSystem;

    struct Fixture {
        clock: Arc<FakeClock>,
        timer: Arc<FakeTimer>,
        sci: Arc<FakeLine>,
        system: Arc<FakeSystem>,
        pm: AcpiPm,
    }

    fn fixture() -> Fixture {
        let clock = FakeClock::new(0);
        let timer = FakeTimer::new();
        let sci = FakeLine::new();
        let system = FakeSystem::new();
        let pm = AcpiPm::new(clock.clone(), timer.clone(), sci.clone(), system.clone());
        Fixture {
            clock,
            timer,
            sci,
            system,
            pm,
        }
    }

    impl Fixture {
        fn read32(&mut self, offset: u64) -> u32 {
            let mut data = [0; 4];
            self.pm.read(offset, &mut data);
            u32::from_le_bytes(data)
        }

        fn write16(&mut self, offset: u64, value: u16) {
            self.pm.write(offset, &value.to_le_bytes());
        }
    }

    #[test]
    fn the_timer_runs_at_its_frequency() {
        let mut f = fixture();
        f.clock.advance(2_000_000_000);

        assert_eq!(f.read32(PM_TMR), 2 * PM_TIMER_HZ as u32);
    }

    #[test]
    fn the_timer_interrupts_when_its_bit_23_changes() {
        let mut f = fixture();
        f.write16(PM1_EN, TMR);
        let deadline = f.timer.deadline().unwrap();
        f.clock.advance(deadline - 1);
        f.pm.expired();
        let early = f.sci.level();

        f.clock.advance(1);
        f.pm.expired();

        assert!(!early);
        assert!(f.sci.level());
        assert_eq!(f.timer.deadline(), None);
    }

    #[test]
    fn the_timer_wraps_at_24_bits() {
        let mut f = fixture();
        f.clock.advance(10_000_000_000);

        let ticks = f.read32(PM_TMR);

        assert_eq!(u64::from(ticks), 10 * PM_TIMER_HZ - 2 * (TIMER_BITS + 1));
    }

    #[test]
    fn the_timer_interrupts_twice_in_every_wrap() {
        let mut f = fixture();
        f.write16(PM1_EN, TMR);

        for _ in 0..10 {
            let deadline = f.timer.deadline().unwrap();
            f.clock.advance(deadline - f.clock.now());
            f.pm.expired();
            f.write16(PM1_STS, TMR);
        }

        assert_eq!(f.sci.edges(), 10);
        let wraps = f.clock.now() * PM_TIMER_HZ / 1_000_000_000 / (TIMER_BITS + 1);
        assert_eq!(wraps, 5);
    }

    #[test]
    fn the_timer_tells_a_guest_that_only_looks_that_it_went_around() {
        let mut f = fixture();
        f.clock.advance(3_000_000_000);

        let status = f.read32(PM1_STS) as u16;

        assert_eq!(status & TMR, TMR);
        assert!(!f.sci.level());
    }

    #[test]
    fn the_timer_goes_on_where_it_was_saved() {
        let f = fixture();
        f.clock.advance(3_000_000_000);
        let saved = f.pm.save();
        let mut other = fixture();

        other.pm.restore(saved).unwrap();
        other.clock.advance(1_000_000_000);

        assert_eq!(other.read32(PM_TMR), 4 * PM_TIMER_HZ as u32);
    }

    #[test]
    fn the_power_button_raises_the_sci_until_it_is_acknowledged() {
        let mut f = fixture();
        f.write16(PM1_EN, PWRBTN);

        let listened = f.pm.power_button();
        let raised = f.sci.level();
        f.write16(PM1_STS, PWRBTN);

        assert!(listened && raised);
        assert!(!f.sci.level());
    }

    #[test]
    fn the_power_button_says_when_nobody_listens() {
        let mut f = fixture();

        assert!(!f.pm.power_button());
        assert!(!f.sci.level());
    }

    #[test]
    fn sleep_types_map_to_what_the_machine_does() {
        for (kind, event) in [
            (SLP_TYP_S5, SystemEvent::PowerOff),
            (SLP_TYP_S3, SystemEvent::Sleep),
            (SLP_TYP_S4, SystemEvent::PowerOff),
        ] {
            let mut f = fixture();

            f.write16(PM1_CNT, SLP_EN | u16::from(kind) << SLP_TYP_SHIFT);

            assert_eq!(f.system.events(), [event]);
            assert_eq!(f.read32(PM1_CNT) as u16 & SLP_EN, 0);
        }
    }

    #[test]
    fn the_apm_port_switches_acpi_mode() {
        let f = fixture();
        let pm = Arc::new(Mutex::new(f.pm));
        let ports = ApmPorts(Arc::clone(&pm));

        BusDevice::write(&ports, 0, &[ACPI_ENABLE]);
        let enabled = pm.lock().is_acpi_mode();
        BusDevice::write(&ports, 0, &[ACPI_DISABLE]);

        assert!(enabled);
        assert!(!pm.lock().is_acpi_mode());
    }

    #[test]
    fn firmware_can_not_clear_the_smi_lock() {
        let mut f = fixture();

        f.pm.write(SMI_EN, &[0; 4]);

        assert_eq!(f.read32(SMI_EN), APMC_EN);
    }

    #[test]
    fn general_events_reach_the_sci_once_enabled() {
        let mut f = fixture();
        f.pm.general_event(9);
        let before = f.sci.level();

        f.pm.write(GPE0_EN + 1, &[2]);

        assert!(!before);
        assert!(f.sci.level());
    }
}

crate::state_tests!(
    acpi_pm_state,
    AcpiPm::new(
        crate::clock::FakeClock::new(0),
        crate::clock::FakeTimer::new(),
        crate::interrupt::FakeLine::new(),
        crate::system::FakeSystem::new(),
    ),
    |pm: &mut AcpiPm| {
        pm.write(PM1_EN, &0x101_u16.to_le_bytes());
        pm.power_button();
        pm.write(GPE0_EN, &[3]);
    }
);
