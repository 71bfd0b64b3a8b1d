//! Tags: what an allocation is for, so that statistics and messages can say it.

use super::error::HeapError;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// The kind of thing that an allocation holds: `"rx queue"`, `"flow table"`. A small number that
/// stands for a name; the names are those of the whole process.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(u8);

/// The most names that a process may have, with the one that is always there.
pub const MAX_TAGS: usize = 256;

/// The longest name, in bytes.
pub const MAX_TAG_BYTES: usize = 31;

/// Names of the tags from 1 on.
static NAMES: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl Tag {
    /// What has no tag of its own.
    pub const UNTAGGED: Self = Self(0);

    /// The tag of this name: the same name always gives the same tag. Takes a lock and looks
    /// through all names, so it is for start-up.
    ///
    /// # Errors
    /// [`HeapError::TagName`] if the name is empty or longer than [`MAX_TAG_BYTES`],
    /// [`HeapError::TooManyTags`] if there are [`MAX_TAGS`] already.
    pub fn new(name: &str) -> Result<Self, HeapError> {
        if name.is_empty() || name.len() > MAX_TAG_BYTES {
            return Err(HeapError::TagName { name: name.to_owned() });
        }
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        let known = names.iter().position(|known| known == name);
        let index = match known {
            Some(index) => index,
            None if names.len() + 1 >= MAX_TAGS => {
                return Err(HeapError::TooManyTags { name: name.to_owned() });
            }
            None => {
                names.push(name.to_owned());
                names.len() - 1
            }
        };
        // Below MAX_TAGS.
        Ok(Self(index as u8 + 1))
    }

    /// Its name.
    pub fn name(self) -> String {
        let names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        let name = usize::from(self.0).checked_sub(1).and_then(|index| names.get(index));
        name.map_or_else(|| "untagged".to_owned(), String::clone)
    }

    #[inline]
    pub(super) fn index(self) -> u8 {
        self.0
    }

    #[inline]
    pub(super) fn from_index(index: u8) -> Self {
        Self(index)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&self.name())
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Tag({:?})", self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_is_one_tag() {
        let tag = Tag::new("tag test").unwrap();
        assert_eq!(Tag::new("tag test").unwrap(), tag);
        assert_ne!(Tag::new("tag test 2").unwrap(), tag);
        assert_ne!(tag, Tag::UNTAGGED);
        assert_eq!((tag.to_string(), Tag::UNTAGGED.name()), ("tag test".into(), "untagged".into()));
        for name in ["", &"x".repeat(32)] {
            let text = Tag::new(name).unwrap_err().to_string();
            assert!(text.contains("1 to 31"), "{text}");
        }
    }
}
