use super::overlay::Overlay;
use super::{Result, check_size};

/// A key that has been looked up: read it, then change it, without a second look-up.
#[derive(Debug)]
pub struct Entry<'a> {
    overlay: &'a mut Overlay,
    slot: u32,
}

impl<'a> Entry<'a> {
    pub(super) fn new(overlay: &'a mut Overlay, slot: u32) -> Self {
        Self { overlay, slot }
    }

    /// The value, as the last write left it.
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        self.overlay.value(self.slot)
    }

    /// Stages `value`.
    pub fn set(&mut self, value: &[u8]) -> Result<()> {
        check_size("value", value)?;
        self.overlay.write(self.slot, Some(value));
        Ok(())
    }

    /// Stages the removal of the key.
    pub fn delete(&mut self) {
        self.overlay.write(self.slot, None);
    }
}
