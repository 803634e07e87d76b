//! The templates of logs as readers may see them: without secrets. Each is looked at once.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::descriptor::{Description, Descriptor};
use super::scrubber::Scrubber;

/// What a look for secrets in a template has told.
#[derive(Clone, Copy)]
pub enum Look {
    Unknown,
    Clean,
    /// A value may become a secret by what stands around it.
    Suspicious,
    /// It holds a secret itself (the first text of an f-string, say).
    Replaced,
}

pub struct ShownTemplates {
    scrubber: Arc<Scrubber>,
    /// By descriptor index.
    looks: Vec<Look>,
    /// By descriptor index: what is told in the place of templates with secrets.
    replacements: HashMap<usize, String>,
}

impl ShownTemplates {
    pub fn new(scrubber: &Arc<Scrubber>) -> Self {
        Self {
            scrubber: Arc::clone(scrubber),
            looks: Vec::new(),
            replacements: HashMap::new(),
        }
    }

    #[inline]
    pub fn look(&mut self, descriptor: &'static Descriptor) -> Look {
        match self.looks.get(descriptor.index) {
            None | Some(Look::Unknown) => self.look_closer(descriptor),
            Some(known) => *known,
        }
    }

    #[cold]
    fn look_closer(&mut self, descriptor: &'static Descriptor) -> Look {
        if descriptor.index >= self.looks.len() {
            self.looks.resize(descriptor.index + 1, Look::Unknown);
        }
        let mut found = Look::Clean;
        if let Description::Log { template, .. } = &descriptor.description {
            let mut text = template.text().to_owned();
            if self.scrubber.is_suspicious(text.as_bytes()) {
                found = Look::Suspicious;
                if self.scrubber.scrub(&mut text, 0) {
                    found = Look::Replaced;
                    self.replacements.insert(descriptor.index, text);
                }
            }
        }
        self.looks[descriptor.index] = found;
        found
    }

    /// What is shown in the place of a template, if it is not the template itself.
    pub fn replacement(&self, descriptor: &Descriptor) -> Option<&str> {
        self.replacements.get(&descriptor.index).map(String::as_str)
    }

    pub fn shown<'s>(&'s self, descriptor: &'s Descriptor) -> Cow<'s, str> {
        match (self.replacement(descriptor), &descriptor.description) {
            (Some(replacement), _) => replacement.into(),
            (None, Description::Log { template, .. }) => template.text().into(),
            _ => "".into(),
        }
    }
}
