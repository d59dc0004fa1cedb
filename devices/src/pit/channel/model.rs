//! A counter that is stepped clock by clock, word for word after the 8254 datasheet: slow, and
//! obvious.

/// One counter.
#[derive(Debug)]
pub(super) struct Model {
    control: u8,
    gate: bool,
    /// Count register, and whether it was written since the control word.
    register: Option<u32>,
    null_count: bool,
    /// The counting element is loaded by the next clock.
    load: bool,
    /// It was loaded, and counts if the gate lets it.
    counts: bool,
    element: u32,
    /// What it showed when a control word stopped it.
    stopped: Option<u32>,
    /// Mode 3: the count that this half was loaded with is odd.
    odd: bool,
    /// The output has changed at the end of the count.
    ended: bool,
    pub(super) output: bool,
    first_byte: Option<u8>,
    read_high: bool,
    latch: Vec<bool>,
    latched: u32,
    status: Option<u8>,
}

impl Model {
    pub(super) fn new(control: u8, gate: bool) -> Self {
        let mut model = Self {
            control: 0,
            gate,
            register: None,
            null_count: true,
            load: false,
            counts: false,
            element: 0,
            stopped: None,
            odd: false,
            ended: false,
            output: true,
            first_byte: None,
            read_high: false,
            latch: Vec::new(),
            latched: 0,
            status: None,
        };
        model.control(control);
        model
    }

    fn mode(&self) -> u8 {
        match self.control >> 1 & 7 {
            6 => 2,
            7 => 3,
            mode => mode,
        }
    }

    fn modulus(&self) -> u32 {
        if self.control & 1 == 1 {
            10_000
        } else {
            65_536
        }
    }

    pub(super) fn control(&mut self, word: u8) {
        self.stopped = Some(self.shows());
        self.control = word & 0x3f;
        self.register = None;
        self.null_count = true;
        self.load = false;
        self.counts = false;
        self.first_byte = None;
        self.read_high = false;
        self.latch.clear();
        self.status = None;
        self.output = self.mode() != 0;
    }

    pub(super) fn write(&mut self, byte: u8) {
        let register = match (self.control >> 4, self.first_byte.take()) {
            (1, _) => u32::from(byte),
            (2, _) => u32::from(byte) << 8,
            (_, Some(low)) => u32::from(byte) << 8 | u32::from(low),
            (_, None) => {
                self.first_byte = Some(byte);
                if self.mode() == 0 {
                    self.counts = false;
                    self.load = false;
                    self.output = false;
                }
                return;
            }
        };
        let count = if self.control & 1 == 1 {
            let digits = format!("{register:04x}");
            let digit = |d: char| d.to_digit(16).unwrap();
            digits.chars().fold(0, |n, d| n * 10 + digit(d)).min(10_000)
        } else {
            register
        };
        let count = if register == 0 { self.modulus() } else { count };
        let waits = !self.counts;
        self.register = Some(count);
        self.null_count = true;
        match self.mode() {
            0 => {
                self.counts = false;
                self.output = false;
                self.load = true;
            }
            4 => self.load = true,
            2 | 3 if waits => self.load = true,
            _ => {}
        }
    }

    pub(super) fn gate(&mut self, gate: bool) {
        let rises = gate && !self.gate;
        self.gate = gate;
        let mode = self.mode();
        if rises && matches!(mode, 1 | 2 | 3 | 5) && self.register.is_some() {
            self.load = true;
        }
        if !gate && matches!(mode, 2 | 3) {
            self.output = true;
        }
    }

    fn take_register(&mut self) -> u32 {
        self.null_count = false;
        let smallest = if matches!(self.mode(), 2 | 3) { 2 } else { 1 };
        self.register.unwrap().max(smallest)
    }

    fn load_half(&mut self) {
        let count = self.take_register();
        self.odd = count % 2 == 1;
        self.element = count - count % 2;
    }

    fn decrement(&mut self) -> u32 {
        let modulus = self.modulus();
        self.element = (self.element + modulus - 1) % modulus;
        self.element
    }

    /// One clock; whether the output rises by it.
    pub(super) fn clock(&mut self) -> bool {
        let before = self.output;
        if std::mem::take(&mut self.load) {
            self.counts = true;
            self.stopped = None;
            self.ended = false;
            self.output = !matches!(self.mode(), 0 | 1);
            match self.mode() {
                3 => self.load_half(),
                _ => self.element = self.take_register(),
            }
        } else if self.counts && (self.gate || matches!(self.mode(), 1 | 5)) {
            self.count();
        }
        self.output && !before
    }

    fn count(&mut self) {
        match self.mode() {
            0 | 1 => {
                if self.decrement() == 0 {
                    self.output = true;
                }
            }
            2 if self.element == 1 => {
                self.element = self.take_register();
                self.output = true;
            }
            2 => self.output = self.decrement() != 1,
            3 if self.output && self.odd && self.element > 0 => self.element -= 2,
            3 if !(self.output && self.odd) && self.element > 2 => self.element -= 2,
            3 => {
                self.output = !self.output;
                self.load_half();
            }
            _ => {
                self.output = true;
                if self.decrement() == 0 && !self.ended {
                    self.output = false;
                    self.ended = true;
                }
            }
        }
    }

    pub(super) fn shows(&self) -> u32 {
        if let Some(shown) = self.stopped {
            return shown;
        }
        let value = self.element % self.modulus();
        if self.control & 1 == 1 {
            u32::from_str_radix(&value.to_string(), 16).unwrap()
        } else {
            value
        }
    }

    pub(super) fn latch_count(&mut self) {
        if self.latch.is_empty() {
            self.latched = self.shows();
            self.latch = vec![true; if self.control >> 4 == 3 { 2 } else { 1 }];
        }
    }

    pub(super) fn latch_status(&mut self) {
        if self.status.is_none() {
            let (output, null) = (u8::from(self.output), u8::from(self.null_count));
            self.status = Some(self.control | output << 7 | null << 6);
        }
    }

    pub(super) fn read(&mut self) -> u8 {
        if let Some(status) = self.status.take() {
            return status;
        }
        let value = match self.latch.pop() {
            Some(_) => self.latched,
            None => self.shows(),
        };
        let high = match self.control >> 4 {
            1 => false,
            2 => true,
            _ => {
                self.read_high = !self.read_high;
                !self.read_high
            }
        };
        (if high { value >> 8 } else { value }) as u8
    }
}
