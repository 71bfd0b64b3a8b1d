//! The EEPROM: 2,048 words that drivers read through EERD (82599 datasheet 6).

/// How many words; EEC's size field says the same.
pub const WORDS: usize = 2048;

const CHECKSUM: usize = 0x3f;
const CHECKSUM_SUM: u16 = 0xbaba;

/// The words of one NIC.
#[derive(Clone, Debug)]
pub struct Eeprom {
    words: Vec<u16>,
}

impl Eeprom {
    /// An EEPROM as drivers want it: MAC address, no sections but the SFP+ list and a firmware
    /// block that says "production", and a good checksum.
    pub fn new(mac: [u8; 6], device_id: u16) -> Self {
        let mut words = vec![0xffff; WORDS];
        words[..0x40].fill(0);
        words[0x03..0x0f].fill(0xffff); // sections that there are not
        words[0x0f] = 0x80; // firmware
        words[0x15] = 0xfafa; // part number as text
        words[0x16] = 0xa0;
        words[0x27] = 0xffff;
        words[0x28] = 0xffff; // no SAN MAC address
        words[0x2b] = 0x100; // SFP+ initialisation
        words[0x2c] = 0x0000; // device capabilities
        words[0x2d] = 0x0001; // version
        words[0x2e] = 0x8000;
        words[0x37] = 0xffff;
        words[0x38] = 0x0000;
        // Firmware: its parameters stand where word 4 points, the version in their word 7.
        words[0x80..0x90].fill(0);
        words[0x84] = 0x90;
        words[0x90..0xa0].fill(0);
        words[0x97] = 6;
        // Part number: length in words, then two characters a word.
        for (n, pair) in b"SOFTNIC-82".chunks(2).enumerate() {
            words[0xa1 + n] = u16::from_be_bytes([pair[0], pair[1]]);
        }
        words[0xa0] = 6;
        // SFP+ list: pairs of module type and pointer to what goes to CORECTL.
        let mut at = 0x101;
        words[0x100] = 0;
        for module in [3, 4, 5, 6, 9, 10, 11, 12] {
            words[at] = module;
            words[at + 1] = 0x140;
            at += 2;
        }
        words[at] = 0xffff;
        words[0x140] = 2; // length, then values up to 0xffff
        words[0x141] = 0x0000;
        words[0x142] = 0xffff;
        // LAN 0: MAC address as the hardware would load it.
        for n in 0..3 {
            words[0x180 + n] = u16::from_le_bytes([mac[2 * n], mac[2 * n + 1]]);
        }
        words[0x190] = device_id;
        let mut eeprom = Self { words };
        eeprom.seal();
        eeprom
    }

    /// The word at `address`; all ones where there is none.
    pub fn read(&self, address: usize) -> u16 {
        self.words.get(address).copied().unwrap_or(0xffff)
    }

    /// Changes a word, as EEWR does.
    pub fn write(&mut self, address: usize, value: u16) {
        if let Some(word) = self.words.get_mut(address) {
            *word = value;
        }
    }

    /// Makes the checksum right: the words up to and including it, and those of all sections that
    /// the pointers 3 to 0xe name, add up to 0xbaba.
    fn seal(&mut self) {
        let sum = self.words[..CHECKSUM].iter().fold(0u16, |sum, word| sum.wrapping_add(*word));
        self.words[CHECKSUM] = CHECKSUM_SUM.wrapping_sub(sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_what_drivers_add_up_to() {
        let eeprom = Eeprom::new([2, 0, 0, 0, 0, 1], 0x10fb);
        let sum = (0..=CHECKSUM).fold(0u16, |sum, n| sum.wrapping_add(eeprom.read(n)));
        assert_eq!(sum, CHECKSUM_SUM);
        assert!((3..0xf).all(|n| eeprom.read(n) == 0xffff));
        assert_eq!(eeprom.read(WORDS), 0xffff);
    }

    #[test]
    fn the_sfp_list_has_an_end_and_names_short_range_modules() {
        let eeprom = Eeprom::new([0; 6], 0x10fb);
        let list = usize::from(eeprom.read(0x2b)) + 1;
        let types: Vec<u16> =
            (0..).map(|n| eeprom.read(list + 2 * n)).take_while(|kind| *kind != 0xffff).collect();
        assert!(types.contains(&5), "{types:?}");
    }
}
