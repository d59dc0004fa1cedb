//! `inputs` and `serial`.

use super::Checker;
use crate::config::Config;
use crate::config::endpoint::SerialTo;
use crate::config::input::{Input, InputDevice};
use crate::config::path::at;
use crate::config::spec::InputSpec;

impl Checker<'_> {
    pub(super) fn inputs(&mut self, config: &Config) -> Vec<InputSpec> {
        let tablet = [Input {
            device: InputDevice::Tablet,
            id: None,
            address: None,
        }];
        let headless =
            config.display.is_none() && config.displays.is_empty() && config.spice.is_none();
        let inputs = match &config.inputs {
            Some(inputs) => inputs.as_slice(),
            None if headless => &[],
            None => &tablet,
        };
        let specs = inputs.iter().enumerate().filter_map(|(index, input)| {
            let path = at!("inputs", index);
            let word = input.device.word();
            Some(InputSpec {
                id: self.id(&input.id, word, word, &path),
                address: self.address(input.address, None, &path)?,
                device: input.device,
            })
        });
        specs.collect()
    }

    pub(super) fn serial(&mut self, config: &Config) -> SerialTo {
        let place = at!("serial", "to");
        match config.serial.as_ref().and_then(|serial| serial.to.clone()) {
            None => SerialTo::Stdio,
            Some(SerialTo::File(path)) => SerialTo::File(self.new_file(&path, place)),
            Some(SerialTo::Unix(path)) => {
                self.unsupported(place, "a serial port on a socket");
                SerialTo::Unix(self.absolute(&path))
            }
            Some(to) => to,
        }
    }
}
