//! Makes log events with texts of those that keep template and values apart.

use std::collections::HashMap;

use super::super::bytes::ByteReader;
use super::super::dependencies::Dependencies;
use super::super::error::{wire_error, Result};
use super::super::layout::RecordTypes;
use super::record_writer::RecordWriter;
use super::shape::TEMPLATE_EVENT;
use super::values::read_values;
use crate::message::finish_message;
use crate::message::template::Template;

const CODEC_UTF8: u8 = 2;
/// Type index and length.
const RECORD_HEAD: usize = 5;

pub struct TemplateEvents<'d, 'a> {
    /// Type index of the events with templates.
    pub index: usize,
    /// Type indexes of the events that come instead, without and with properties.
    plain: u8,
    tagged: u8,
    dependencies: &'d Dependencies<'a>,
    /// By id of the description; with the number of its conversions.
    templates: HashMap<u64, (Template<'d>, usize)>,
    /// Many descriptions can refer to one long text.
    template_bytes_left: usize,
    record: Vec<u8>,
    message: String,
}

impl<'d, 'a> TemplateEvents<'d, 'a> {
    pub fn new(types: &RecordTypes, dependencies: &'d Dependencies<'a>, cap: usize) -> Result<Self> {
        let index_of = |name: &str| {
            let found = types.iter().position(|each| each.name == name && each.size.is_none());
            found.ok_or_else(|| wire_error!("type {name} is missing, which events of {TEMPLATE_EVENT} become"))
        };
        Ok(Self {
            index: index_of(TEMPLATE_EVENT)?,
            plain: index_of("LogStringEventV2")? as u8,
            tagged: index_of("TaggedLogString")? as u8,
            dependencies,
            templates: HashMap::new(),
            template_bytes_left: cap,
            record: Vec::new(),
            message: String::new(),
        })
    }

    /// Replaces the last record, which begins at `start`, by one with the message.
    pub fn put_text(&mut self, records: &mut RecordWriter, start: usize) -> Result<()> {
        let mut record = std::mem::take(&mut self.record);
        record.clear();
        record.extend_from_slice(&records.bytes[start + RECORD_HEAD..]);
        records.bytes.truncate(start);
        let put = self.put_text_of(&record, records);
        self.record = record;
        put
    }

    fn put_text_of(&mut self, record: &[u8], records: &mut RecordWriter) -> Result<()> {
        let start = records.bytes.len();
        let mut body = ByteReader::new(record);
        let (description, properties, time) = (body.u64()?, body.u64()?, body.i64()?);
        let values = read_values(&mut body)?;
        if !self.templates.contains_key(&description) {
            let template = self.parse(description)?;
            self.templates.insert(description, template);
        }
        let (template, conversions) = &self.templates[&description];
        self.message.clear();
        if values.is_empty() {
            self.message.push_str(template.text());
        } else if values.len() == *conversions {
            template.write_message(&values, &mut self.message);
        } else {
            return Err(wire_error!(
                "{} values for a template of {conversions} conversions",
                values.len()
            ));
        }
        finish_message(&mut self.message, 0);
        records.append(&[if properties == 0 { self.plain } else { self.tagged }, 0, 0, 0, 0])?;
        records.append(&description.to_le_bytes())?;
        if properties != 0 {
            records.append(&properties.to_le_bytes())?;
        }
        records.append(&time.to_le_bytes())?;
        records.append(&[CODEC_UTF8])?;
        records.append_with_length(self.message.as_bytes())?;
        records.finish_length(start + 1)
    }

    fn parse(&mut self, description: u64) -> Result<(Template<'d>, usize)> {
        let index = self.dependencies.find(description)?;
        let text = self.dependencies.object(index)?.text("fmt_str")?;
        self.template_bytes_left = self
            .template_bytes_left
            .checked_sub(text.len())
            .ok_or_else(|| wire_error!("the templates of the block are too long"))?;
        let template = Template::parse(text);
        let conversions = template.conversion_letters().map_or(0, |letters| letters.len());
        Ok((template, conversions))
    }
}
