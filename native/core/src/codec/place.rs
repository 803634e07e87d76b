//! Where a member lies in a record and how its bytes are read: little-endian, unaligned, checked when the layout was.

/// A member that is one number or one reference. `offset` is in bytes from the start of the type that holds it.
///
/// The readers take a record of that type: at least as long as the declared size, within which the place was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub offset: usize,
    pub kind: PlaceKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaceKind {
    /// The u64 id of a dependency.
    Reference,
    U8,
    U32,
    U64,
    I64,
    F64,
}

/// A declared member.
#[derive(Debug, Clone)]
pub struct Field {
    pub name: String,
    pub value: FieldValue,
}

#[derive(Debug, Clone)]
pub enum FieldValue {
    Plain(Place),
    /// A type in place, `offset` bytes from the start of the type that holds it.
    Object {
        offset: usize,
        type_name: String,
        fields: Vec<Field>,
    },
}

impl Field {
    /// The member, unless it is an object in place.
    pub fn place(&self) -> Option<Place> {
        match self.value {
            FieldValue::Plain(place) => Some(place),
            FieldValue::Object { .. } => None,
        }
    }
}

/// The place of the reference called `name` among `fields`.
pub fn find_reference(fields: &[Field], name: &str) -> Option<Place> {
    let place = fields.iter().find(|field| field.name == name)?.place()?;
    place.is_reference().then_some(place)
}

impl PlaceKind {
    /// Bytes of a value.
    pub fn size(self) -> u64 {
        match self {
            Self::U8 => 1,
            Self::U32 => 4,
            Self::Reference | Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }
}

impl Place {
    #[inline]
    fn bytes<const N: usize>(&self, record: &[u8]) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&record[self.offset..self.offset + N]);
        bytes
    }

    pub fn is_reference(&self) -> bool {
        self.kind == PlaceKind::Reference
    }

    /// Is it an integer of 8 bytes (a time, an id)?
    pub fn is_wide(&self) -> bool {
        matches!(self.kind, PlaceKind::U64 | PlaceKind::I64)
    }

    /// Is it an integer of at most 4 bytes (a level, a line, a depth)?
    pub fn is_narrow(&self) -> bool {
        matches!(self.kind, PlaceKind::U8 | PlaceKind::U32)
    }

    /// The id that a reference holds.
    #[inline]
    pub fn reference(&self, record: &[u8]) -> u64 {
        self.u64(record)
    }

    /// The 8 bytes of a wide member as i64, the way counters travel.
    #[inline]
    pub fn i64(&self, record: &[u8]) -> i64 {
        i64::from_le_bytes(self.bytes(record))
    }

    /// The 8 bytes of a wide member as u64.
    #[inline]
    pub fn u64(&self, record: &[u8]) -> u64 {
        u64::from_le_bytes(self.bytes(record))
    }

    /// A narrow member.
    #[inline]
    pub fn u32(&self, record: &[u8]) -> u32 {
        match self.kind {
            PlaceKind::U8 => u32::from(self.bytes::<1>(record)[0]),
            _ => u32::from_le_bytes(self.bytes(record)),
        }
    }

    #[inline]
    pub fn f64(&self, record: &[u8]) -> f64 {
        f64::from_le_bytes(self.bytes(record))
    }
}
