//! What is in an object: the rows of tables, as PostgreSQL's COPY text.
//!
//! A section is a 32-bit length and so much JSON, `{"table": …, "columns": […]}`, then chunks, each a 32-bit length and so
//! many bytes of COPY text. A chunk of length 0 ends the section, a head of length 0 the object. Lengths are
//! little-endian. Chunks end anywhere, also within a row.

use finaiflow_schema::names::{Identifier, NameError};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::seal::{self, Error, Result, Sealed};

/// What a chunk is filled up to.
const CHUNK: usize = 64 * 1024;
const MAX_CHUNK: usize = 1024 * 1024;
/// The 1,600 columns that a table can have, at their longest.
const MAX_HEAD: usize = 128 * 1024;

/// Whose rows follow. Names are checked ones, as they end up in SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The table, without its schema.
    pub table: Identifier,
    /// The columns in the order of the text.
    pub columns: Vec<Identifier>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    table: String,
    columns: Vec<String>,
}

impl Section {
    fn head(&self) -> Head {
        let columns = self.columns.iter().map(ToString::to_string).collect();
        Head { table: self.table.to_string(), columns }
    }

    fn of(head: Head) -> std::result::Result<Self, NameError> {
        let columns = head.columns.into_iter().map(Identifier::new).collect::<std::result::Result<_, _>>()?;
        Ok(Self { table: Identifier::new(head.table)?, columns })
    }
}

/// Writes sections into a sealed object.
pub struct Writer<W> {
    object: seal::Writer<W>,
    /// A chunk in the making, behind room for its length.
    chunk: Vec<u8>,
}

const LENGTH: usize = 4;

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// Begins with the first section.
    #[must_use]
    pub fn new(object: seal::Writer<W>) -> Self {
        let mut chunk = Vec::with_capacity(LENGTH + CHUNK);
        chunk.resize(LENGTH, 0);
        Self { object, chunk }
    }

    /// Begins a section. The one before has to be ended.
    pub async fn begin(&mut self, section: &Section) -> Result<()> {
        let head = serde_json::to_vec(&section.head()).map_err(|_| Error::Content("a section's head is not JSON"))?;
        self.chunk.extend_from_slice(&head);
        self.emit().await
    }

    /// Adds COPY text to the section.
    pub async fn write(&mut self, mut text: &[u8]) -> Result<()> {
        while !text.is_empty() {
            let (now, rest) = text.split_at(text.len().min(LENGTH + CHUNK - self.chunk.len()));
            self.chunk.extend_from_slice(now);
            text = rest;
            if self.chunk.len() == LENGTH + CHUNK {
                self.emit().await?;
            }
        }
        Ok(())
    }

    /// Ends the section.
    pub async fn end(&mut self) -> Result<()> {
        if self.chunk.len() > LENGTH {
            self.emit().await?;
        }
        self.emit().await
    }

    /// Ends the object. The last section has to be ended.
    pub async fn finish(mut self) -> Result<(W, Sealed)> {
        self.emit().await?;
        self.object.finish().await
    }

    async fn emit(&mut self) -> Result<()> {
        let length = u32::try_from(self.chunk.len() - LENGTH).map_err(|_| Error::TooLong)?;
        self.chunk[..LENGTH].copy_from_slice(&length.to_le_bytes());
        self.object.write(&self.chunk).await?;
        self.chunk.truncate(LENGTH);
        Ok(())
    }
}

/// Reads sections out of a sealed object.
///
/// That nothing is missing is known when [`Self::section`] has returned none, so until then nothing may count.
pub struct Reader<R> {
    object: seal::Reader<R>,
    within: bool,
    chunk: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Stands before the first section.
    #[must_use]
    pub fn new(object: seal::Reader<R>) -> Self {
        Self { object, within: false, chunk: Vec::new() }
    }

    /// The next section, the rest of the one before left out; none at the end of the object.
    pub async fn section(&mut self) -> Result<Option<Section>> {
        while self.chunk().await?.is_some() {}
        self.read(MAX_HEAD).await?;
        if self.chunk.is_empty() {
            return match self.object.read(&mut [0]).await? {
                0 => Ok(None),
                _ => Err(Error::Content("there is more after the last section")),
            };
        }
        let head = serde_json::from_slice(&self.chunk).map_err(|_| Error::Content("a section has no proper head"))?;
        let section = Section::of(head).map_err(|_| Error::Content("a section names what is no identifier"))?;
        self.within = true;
        Ok(Some(section))
    }

    /// The next piece of the section's COPY text; none at the end of the section.
    pub async fn chunk(&mut self) -> Result<Option<&[u8]>> {
        if !self.within {
            return Ok(None);
        }
        self.read(MAX_CHUNK).await?;
        self.within = !self.chunk.is_empty();
        Ok(self.within.then_some(self.chunk.as_slice()))
    }

    /// Reads a length and so many bytes.
    async fn read(&mut self, most: usize) -> Result<()> {
        let mut length = [0; LENGTH];
        self.fill(&mut length).await?;
        let length = u32::from_le_bytes(length) as usize;
        if length > most {
            return Err(Error::Content("a section is longer than any"));
        }
        let mut chunk = std::mem::take(&mut self.chunk);
        chunk.resize(length, 0);
        self.fill(&mut chunk).await?;
        self.chunk = chunk;
        Ok(())
    }

    async fn fill(&mut self, mut buffer: &mut [u8]) -> Result<()> {
        while !buffer.is_empty() {
            let read = self.object.read(buffer).await?;
            if read == 0 {
                return Err(Error::Content("it ends within a section"));
            }
            buffer = &mut buffer[read..];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use age::secrecy::ExposeSecret as _;
    use proptest::prelude::*;

    use super::*;
    use crate::manifest::testing::manifest;
    use crate::manifest::{Kind, Manifest};
    use crate::seal::{Identities, Label, Secrets};

    fn label() -> Label {
        let Manifest { claim_id, id, .. } = manifest(0, Kind::Full, None);
        Label { claim: claim_id, artefact: id }
    }

    fn identities() -> Identities {
        Identities::parse(age::x25519::Identity::generate().to_string().expose_secret()).unwrap()
    }

    fn section(table: &str, columns: &[&str]) -> Section {
        let identifier = |name: &&str| Identifier::new(*name).unwrap();
        Section { table: identifier(&table), columns: columns.iter().map(identifier).collect() }
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    async fn object(identities: &Identities) -> seal::Writer<Vec<u8>> {
        let secrets = Secrets { key: [1; 32], nonce_prefix: [2; 7] };
        seal::Writer::new(Vec::new(), &identities.recipients(), &label(), &secrets).await.unwrap()
    }

    async fn reader<'a>(identities: &Identities, object: &'a [u8]) -> Reader<&'a [u8]> {
        Reader::new(seal::Reader::open(object, identities, &label()).await.unwrap())
    }

    /// What a reader makes of an object with that content.
    fn read(content: &[u8]) -> Result<Vec<(Section, Vec<u8>)>> {
        let identities = identities();
        run(async {
            let mut writer = object(&identities).await;
            writer.write(content).await.unwrap();
            let (object, _) = writer.finish().await.unwrap();
            let mut reader = reader(&identities, &object).await;
            let mut read = Vec::new();
            while let Some(section) = reader.section().await? {
                let mut text = Vec::new();
                while let Some(chunk) = reader.chunk().await? {
                    text.extend_from_slice(chunk);
                }
                read.push((section, text));
            }
            Ok(read)
        })
    }

    fn part(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_le_bytes(), bytes].concat()
    }

    #[test]
    fn the_form_is_the_documented_one() {
        let head = part(br#"{"table":"journals","columns":["sequence","kind"]}"#);
        let content = [head.as_slice(), &part(b"1\tde"), &part(b"posit\n"), &part(b""), &part(b"")].concat();
        let journals = section("journals", &["sequence", "kind"]);
        assert_eq!(read(&content).unwrap(), [(journals, b"1\tdeposit\n".to_vec())]);
        assert_eq!(read(&part(b"")).unwrap(), []);
    }

    #[test]
    fn what_does_not_follow_the_form_is_refused() {
        let head = part(br#"{"table":"journals","columns":["sequence"]}"#);
        for (wrong, content) in [
            ("within", vec![]),
            ("within", head.clone()),
            ("within", [head.as_slice(), &part(b"1\n")].concat()),
            ("within", [head.as_slice(), &part(b"1\n"), &part(b"")].concat()),
            ("within", [head.as_slice(), &[9, 0, 0, 0, 1]].concat()),
            ("after the last", [part(b""), vec![0]].concat()),
            ("head", part(b"{}")),
            ("head", part(br#"{"table":"t","columns":[],"where":"1"}"#)),
            ("identifier", part(br#"{"table":"journals; DROP TABLE x","columns":[]}"#)),
            ("identifier", part(br#"{"table":"journals","columns":["a\" , b"]}"#)),
            ("longer", [head.as_slice(), &[0xff; 4]].concat()),
            ("longer", vec![0xff; 4]),
        ] {
            let error = read(&content).unwrap_err();
            assert!(error.to_string().contains(wrong), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_section_can_be_left_out() {
        let identities = identities();
        let (one, two) = (section("accounts", &["id"]), section("holds", &["id"]));
        run(async {
            let mut writer = Writer::new(object(&identities).await);
            for section in [&one, &two] {
                writer.begin(section).await.unwrap();
                writer.write(&vec![b'1'; 3 * CHUNK]).await.unwrap();
                writer.end().await.unwrap();
            }
            let (object, _) = writer.finish().await.unwrap();
            let mut reader = reader(&identities, &object).await;
            assert_eq!(reader.section().await.unwrap(), Some(one));
            assert_eq!(reader.section().await.unwrap(), Some(two));
            assert_eq!(reader.chunk().await.unwrap().map(<[u8]>::len), Some(CHUNK));
            assert_eq!(reader.section().await.unwrap(), None);
            assert_eq!(reader.chunk().await.unwrap(), None);
        });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_is_written_is_read(sizes in prop::collection::vec((0..200_000_usize, 1..100_000_usize), 0..5)) {
            let identities = identities();
            let sections: Vec<_> = (0..).zip(&sizes).map(|(number, _)| section(&format!("t{number}"), &["a", "b"])).collect();
            let text = |size: usize| (0..size).map(|byte| u8::try_from(byte % 251).unwrap()).collect::<Vec<_>>();
            let read = run(async {
                let mut writer = Writer::new(object(&identities).await);
                for (section, (size, piece)) in sections.iter().zip(&sizes) {
                    writer.begin(section).await.unwrap();
                    for piece in text(*size).chunks(*piece) {
                        writer.write(piece).await.unwrap();
                    }
                    writer.end().await.unwrap();
                }
                let (object, _) = writer.finish().await.unwrap();
                let mut reader = reader(&identities, &object).await;
                let mut read = Vec::new();
                while let Some(section) = reader.section().await.unwrap() {
                    let mut text = Vec::new();
                    while let Some(chunk) = reader.chunk().await.unwrap() {
                        text.extend_from_slice(chunk);
                    }
                    read.push((section, text));
                }
                read
            });
            let expected: Vec<_> = sections.into_iter().zip(sizes.iter().map(|(size, _)| text(*size))).collect();
            prop_assert!(read == expected);
        }
    }
}
