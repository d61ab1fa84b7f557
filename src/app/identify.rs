//! Which of many boxes this is: an LED of it blinks for a while.
//!
//! The kernel does the blinking (the trigger `timer`, Documentation/leds/leds-class.rst). What the LED showed before comes
//! back at the end, also at the end of the program.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tracing::warn;

/// Where the kernel has its LEDs.
pub(super) const LEDS: &str = "/sys/class/leds";
/// Those that one looks for first: the Raspberry Pi's, by its newer and its older kernels.
const USUAL: [&str; 2] = ["ACT", "led0"];

/// An LED that blinks until this is dropped.
#[derive(Debug)]
pub(super) struct Blinking {
    led: PathBuf,
    trigger: String,
    brightness: String,
}

impl Blinking {
    /// `wanted` is a name in the folder.
    pub(super) fn start(leds: &Path, wanted: Option<&str>) -> Result<Self, String> {
        let led = leds.join(choose(&names(leds), wanted)?);
        let failed = |error: io::Error| format!("the LED {} cannot be used: {error}", led.display());
        let triggers = fs::read_to_string(led.join("trigger")).map_err(failed)?;
        let brightness = fs::read_to_string(led.join("brightness")).map_err(failed)?;
        // `none [mmc0] timer`
        let current = triggers.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
        let trigger = current.unwrap_or("none").to_owned();
        if !triggers.split_whitespace().any(|word| word.trim_matches(['[', ']']) == "timer") {
            return Err(format!("the LED {} cannot blink: its kernel has no trigger `timer`", led.display()));
        }
        fs::write(led.join("trigger"), "timer").map_err(failed)?;
        Ok(Self { led, trigger, brightness })
    }

    /// As people call it.
    pub(super) fn name(&self) -> String {
        self.led.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

impl Drop for Blinking {
    fn drop(&mut self) {
        let mut restored = fs::write(self.led.join("trigger"), &self.trigger);
        if self.trigger == "none" {
            // With a trigger it is the trigger's.
            restored = restored.and_then(|()| fs::write(self.led.join("brightness"), self.brightness.trim()));
        }
        if let Err(error) = restored {
            warn!(led = %self.led.display(), %error, "The LED cannot be set back to what it showed.");
        }
    }
}

fn names(leds: &Path) -> Vec<String> {
    // A machine without the folder has none.
    let entries = fs::read_dir(leds).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn choose(names: &[String], wanted: Option<&str>) -> Result<String, String> {
    let there_are = || if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    if let Some(wanted) = wanted {
        let is_there = names.iter().any(|name| name == wanted);
        let missing = || format!("this device has no LED {wanted:?} ([device] led); there are: {}", there_are());
        return is_there.then(|| wanted.to_owned()).ok_or_else(missing);
    }
    let usual = USUAL.iter().find(|usual| names.iter().any(|name| name == *usual));
    match (usual, names) {
        (Some(usual), _) => Ok((*usual).to_owned()),
        (None, [only]) => Ok(only.clone()),
        (None, []) => Err("this device has no LED that could blink".into()),
        (None, _) => Err(format!("name the LED that is to blink in [device] led; there are: {}", there_are())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leds(all: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, trigger) in all {
            let led = folder.path().join(name);
            fs::create_dir(&led).unwrap();
            fs::write(led.join("trigger"), trigger).unwrap();
            fs::write(led.join("brightness"), "1\n").unwrap();
        }
        folder
    }

    #[test]
    fn it_blinks_and_is_as_before_afterwards() {
        for (triggers, before) in [("none [mmc0] timer\n", "mmc0"), ("[none] mmc0 timer\n", "none")] {
            let leds = leds(&[("ACT", triggers), ("PWR", "none [on] timer")]);
            let read = |file| fs::read_to_string(leds.path().join("ACT").join(file)).unwrap();
            let blinking = Blinking::start(leds.path(), None).unwrap();
            assert_eq!((read("trigger").as_str(), blinking.name().as_str()), ("timer", "ACT"));
            fs::write(leds.path().join("ACT/brightness"), "255\n").unwrap();
            drop(blinking);
            assert_eq!(read("trigger"), before);
            assert_eq!(read("brightness").trim(), if before == "none" { "1" } else { "255" });
        }
    }

    #[test]
    fn which_one_is_clear_or_asked_for() {
        let start = |all: &[(&str, &str)], wanted: Option<&str>| {
            let leds = leds(all);
            Blinking::start(leds.path(), wanted).map(|led| led.name())
        };
        let timer = "[none] timer";
        assert_eq!(start(&[("green", timer)], None), Ok("green".into()));
        assert_eq!(start(&[("a", timer), ("led0", timer)], None), Ok("led0".into()));
        assert_eq!(start(&[("a", timer), ("led0", timer)], Some("a")), Ok("a".into()));
        for (all, wanted, words) in [
            (&[][..], None, "has no LED that could blink"),
            (&[("a", timer), ("b", timer)][..], None, "[device] led; there are: a, b"),
            (&[("a", timer)][..], Some("b"), "no LED \"b\" ([device] led); there are: a"),
            (&[("a", "[none] mmc0")][..], None, "no trigger `timer`"),
        ] {
            let error = start(all, wanted).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        assert!(Blinking::start(Path::new("/does/not/exist"), None).unwrap_err().contains("no LED"));
    }
}
