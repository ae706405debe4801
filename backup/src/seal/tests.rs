use std::pin::Pin;
use std::task::{Context, Poll};

use age::secrecy::ExposeSecret as _;
use age::x25519;
use proptest::prelude::*;
use tokio::io::{AsyncRead, ReadBuf};

use super::frames::{FRAME, TAG};
use super::*;
use crate::manifest::Kind;
use crate::manifest::testing::claim;
use crate::sha256::{Sha256, sha256};

const SECRETS: Secrets = Secrets { key: [5; 32], nonce_prefix: [6; 7] };

fn identity() -> Identities {
    Identities::parse(x25519::Identity::generate().to_string().expose_secret()).unwrap()
}

fn label(number: u32) -> Label {
    let artefact = ArtefactId::new(time::OffsetDateTime::UNIX_EPOCH, Kind::Full, number);
    Label { claim: claim(), artefact }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

async fn seal_with(recipients: &Recipients, content: &[u8], label: &Label, secrets: &Secrets) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), recipients, label, secrets).await.unwrap();
    writer.write(content).await.unwrap();
    let (object, sealed) = writer.finish().await.unwrap();
    assert_eq!(sealed, Sealed { bytes: object.len() as u64, sha256: sha256(&object) });
    object
}

fn seal(identities: &Identities, content: &[u8]) -> Vec<u8> {
    run(seal_with(&identities.recipients(), content, &label(1), &SECRETS))
}

async fn open_as(identities: &Identities, object: &[u8], label: &Label) -> Result<Vec<u8>> {
    let mut reader = Reader::open(object, identities, label).await?;
    let (mut content, mut piece) = (Vec::new(), [0; 10_000]);
    loop {
        match reader.read(&mut piece).await? {
            0 => return Ok(content),
            read => content.extend_from_slice(&piece[..read]),
        }
    }
}

fn open(identities: &Identities, object: &[u8]) -> Result<Vec<u8>> {
    run(open_as(identities, object, &label(1)))
}

/// What no compressor makes smaller.
fn noise(length: usize) -> Vec<u8> {
    let blocks = (0_u64..).flat_map(|number| sha256(&number.to_le_bytes()).0);
    blocks.take(length).collect()
}

/// Where the frames begin.
fn frames_at(object: &[u8]) -> usize {
    8 + 4 + u32::from_le_bytes(object[8..12].try_into().unwrap()) as usize + 7
}

/// An object of exactly so many frames, the last of which is full, and its content.
fn full_frames(identities: &Identities, frames: usize) -> (Vec<u8>, Vec<u8>) {
    let most = noise(frames * FRAME);
    let mut tries = (0..100).map(|less| {
        let content = &most[..most.len() - less];
        (content.to_vec(), seal(identities, content))
    });
    tries.find(|(_, object)| object.len() - frames_at(object) == frames * (FRAME + TAG)).unwrap()
}

#[test]
fn every_flipped_bit_is_refused() {
    let identities = identity();
    let object = seal(&identities, b"1\tUSD\t100\n2\tUSD\t-100\n");
    for bit in 0..object.len() * 8 {
        let mut flipped = object.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let error = open(&identities, &flipped).unwrap_err();
        let expected = match bit / 8 {
            0..8 => matches!(error, Error::NotSealed),
            8..12 => matches!(error, Error::NotSealed | Error::WrappedKey | Error::WrongIdentity),
            at if at < frames_at(&object) - 7 => matches!(error, Error::WrappedKey | Error::WrongIdentity),
            _ => matches!(error, Error::Damaged { frame: 0 }),
        };
        assert!(expected, "bit {bit}: {error:?}");
    }
}

#[test]
fn every_cut_is_refused() {
    let identities = identity();
    let object = seal(&identities, b"1\tUSD\t100\n2\tUSD\t-100\n");
    let frames = frames_at(&object);
    for length in 0..object.len() {
        let error = open(&identities, &object[..length]).unwrap_err();
        let expected = match length {
            _ if length < frames => matches!(error, Error::NotSealed),
            _ if length <= frames + TAG => matches!(error, Error::Truncated { frame: 0 }),
            _ => matches!(error, Error::Damaged { frame: 0 }),
        };
        assert!(expected, "{length} bytes: {error:?}");
    }
}

#[test]
fn a_cut_between_frames_is_named() {
    let identities = identity();
    let object = seal(&identities, &noise(3 * FRAME));
    let frames = frames_at(&object);
    for frame in 1_u32..4 {
        let error = open(&identities, &object[..frames + frame as usize * (FRAME + TAG)]).unwrap_err();
        assert!(matches!(error, Error::Truncated { frame: missing } if missing == frame), "{error:?}");
    }
    // The first byte of the last frame is there.
    let error = open(&identities, &object[..=frames + 3 * (FRAME + TAG)]).unwrap_err();
    assert!(matches!(error, Error::Truncated { frame: 3 }), "{error:?}");
}

#[test]
fn bytes_after_the_end_are_refused() {
    let identities = identity();
    let (content, mut object) = full_frames(&identities, 2);
    assert_eq!(open(&identities, &object).unwrap(), content);
    object.push(0);
    assert!(matches!(open(&identities, &object), Err(Error::Trailing { frame: 1 })));
    let mut object = seal(&identities, b"short");
    object.push(0);
    assert!(matches!(open(&identities, &object), Err(Error::Damaged { frame: 0 })));
    let twice = [seal(&identities, b"one"), seal(&identities, b"two")].concat();
    assert!(open(&identities, &twice).is_err());
}

#[test]
fn frames_keep_their_place() {
    let identities = identity();
    let object = seal(&identities, &noise(4 * FRAME));
    let frames = frames_at(&object);
    let at = |frame: usize| frames + frame * (FRAME + TAG)..frames + (frame + 1) * (FRAME + TAG);
    let damaged = |object: &[u8]| match open(&identities, object) {
        Err(Error::Damaged { frame }) => frame,
        other => panic!("{other:?}"),
    };
    let mut swapped = object.clone();
    swapped[at(1)].copy_from_slice(&object[at(2)]);
    swapped[at(2)].copy_from_slice(&object[at(1)]);
    assert_eq!(damaged(&swapped), 1);
    let mut doubled = object.clone();
    doubled.splice(at(2).start..at(2).start, object[at(1)].iter().copied());
    assert_eq!(damaged(&doubled), 2);
    let mut left_out = object.clone();
    left_out.drain(at(2));
    assert_eq!(damaged(&left_out), 2);
}

#[test]
fn frames_of_another_object_are_refused() {
    let identities = identity();
    let (recipients, content) = (identities.recipients(), noise(3 * FRAME));
    let object = seal(&identities, &content);
    // The key and the nonces of the one, so that the label alone tells them apart; then a key of its own.
    for other in [SECRETS, Secrets { key: [7; 32], ..SECRETS }] {
        let other = run(seal_with(&recipients, &content, &label(2), &other));
        let (from, other_from) = (frames_at(&object) + FRAME + TAG, frames_at(&other) + FRAME + TAG);
        let mut mixed = object.clone();
        mixed[from..from + FRAME + TAG].copy_from_slice(&other[other_from..other_from + FRAME + TAG]);
        assert!(matches!(open(&identities, &mixed), Err(Error::Damaged { frame: 1 })));
        // The head of the one before the frames of the other.
        let mixed = [&object[..frames_at(&object)], &other[frames_at(&other)..]].concat();
        assert!(matches!(open(&identities, &mixed), Err(Error::Damaged { frame: 0 })));
    }
}

#[test]
fn only_the_recipients_open_it() {
    let (one, two) = (identity(), identity());
    let both = [one.recipients().names(), two.recipients().names()].concat();
    let both = Recipients::parse(both.iter().map(String::as_str)).unwrap();
    let object = run(seal_with(&both, b"content", &label(1), &SECRETS));
    for identities in [&one, &two] {
        assert_eq!(open(identities, &object).unwrap(), b"content");
    }
    assert!(matches!(open(&identity(), &object), Err(Error::WrongIdentity)));
    assert!(matches!(open(&identity(), &seal(&one, b"content")), Err(Error::WrongIdentity)));
}

#[test]
fn only_its_label_opens_it() {
    let identities = identity();
    let object = seal(&identities, b"content");
    let other_bank = Label { claim: ClaimId::from_random(1), ..label(1) };
    for other in [label(2), other_bank] {
        assert!(matches!(run(open_as(&identities, &object, &other)), Err(Error::OtherLabel)));
    }
}

#[test]
fn content_that_is_no_compressed_form_is_refused() {
    let identities = identity();
    let compressed = zstd::encode_all(&b"content"[..], 3).unwrap();
    let forge = |content: &[u8]| {
        let whole = seal(&identities, b"");
        let mut frame = content.to_vec();
        frames::Frames::new(&SECRETS, &label(1)).unwrap().seal(0, true, &mut frame).unwrap();
        open(&identities, &[&whole[..frames_at(&whole)], frame.as_slice()].concat())
    };
    assert_eq!(forge(&compressed).unwrap(), b"content");
    for wrong in
        [&b"no compressed form"[..], &compressed[..compressed.len() - 1], &[compressed.as_slice(), b"more"].concat()]
    {
        assert!(matches!(forge(wrong), Err(Error::Content(_))));
    }
}

#[test]
fn small_secrets_are_opened_as_they_were() {
    let identities = identity();
    let mut sealed = seal_bytes(&identities.recipients(), b"a key").unwrap();
    assert_eq!(open_bytes(&identities, &sealed).unwrap(), b"a key");
    assert!(matches!(open_bytes(&identity(), &sealed), Err(Error::WrongIdentity)));
    let last = sealed.len() - 1;
    assert!(matches!(open_bytes(&identities, &sealed[..last]), Err(Error::WrappedKey)));
    sealed[last] ^= 1;
    assert!(matches!(open_bytes(&identities, &sealed), Err(Error::WrappedKey)));
    sealed.push(0);
    assert!(matches!(open_bytes(&identities, &sealed), Err(Error::WrappedKey)));
}

#[test]
fn keys_are_read_and_not_shown() {
    let key = x25519::Identity::generate();
    let secret = key.to_string();
    let file = format!("# created: today\n# public key: {}\n\n{}\n", key.to_public(), secret.expose_secret());
    let identities = Identities::parse(&file).unwrap();
    assert_eq!(identities.recipients().names(), [key.to_public().to_string()]);
    assert_eq!(format!("{identities:?} {SECRETS:?}"), "Identities(1) Secrets(..)");
    let error = Identities::parse(&format!("# a comment\n{}x", secret.expose_secret())).unwrap_err();
    assert!(matches!(error, Error::Identity(2)));
    assert!(!format!("{error} {error:?}").contains("AGE-SECRET-KEY-1Q"));
    assert!(matches!(Identities::parse("# none\n"), Err(Error::WrongIdentity)));
    assert!(matches!(Recipients::parse([]), Err(Error::NoRecipient)));
    assert!(matches!(Recipients::parse(["age1nobody"]), Err(Error::Recipient(_))));
}

/// Gives out a few bytes at a time, as a network does.
struct Trickle<'a>(&'a [u8], usize);

impl AsyncRead for Trickle<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (now, rest) = self.0.split_at(self.0.len().min(self.1).min(buffer.remaining()));
        buffer.put_slice(now);
        self.0 = rest;
        Poll::Ready(Ok(()))
    }
}

/// Sizes around the borders of frames, by the number of the frame and the distance from its border.
fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![0..2_000_usize, (1..4_usize, 0..80_usize).prop_map(|(frame, less)| frame * FRAME + 20 - less)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_sealed_is_opened(
        size in sizes(), compressible: bool, written in 1..100_000_usize, read in 1..100_000_usize, network in 1..200_000_usize,
    ) {
        let content = if compressible { vec![b'0'; size] } else { noise(size) };
        let (identities, label) = (identity(), label(1));
        let opened = run(async {
            let mut writer = Writer::new(Vec::new(), &identities.recipients(), &label, &SECRETS).await.unwrap();
            for piece in content.chunks(written) {
                writer.write(piece).await.unwrap();
            }
            let (object, _) = writer.finish().await.unwrap();
            let mut reader = Reader::open(Trickle(&object, network), &identities, &label).await.unwrap();
            let (mut opened, mut piece) = (Vec::new(), vec![0; read]);
            loop {
                match reader.read(&mut piece).await.unwrap() {
                    0 => break opened,
                    length => opened.extend_from_slice(&piece[..length]),
                }
            }
        });
        prop_assert!(opened == content);
    }

    #[test]
    fn any_flipped_bit_of_a_long_object_is_refused(position: prop::sample::Index, bit in 0..8_u8) {
        let identities = identity();
        let mut object = seal(&identities, &noise(2 * FRAME));
        let at = position.index(object.len());
        object[at] ^= 1 << bit;
        prop_assert!(open(&identities, &object).is_err());
    }
}

/// A sink that counts, and a source that repeats: neither end holds more than a piece.
#[test]
fn a_long_stream_needs_no_more_memory_than_a_short_one() {
    let identities = identity();
    let piece = noise(1 << 20);
    run(async {
        let (near, far) = tokio::io::duplex(4 * FRAME);
        let write = async {
            let mut writer = Writer::new(near, &identities.recipients(), &label(1), &SECRETS).await.unwrap();
            for _ in 0..64 {
                writer.write(&piece).await.unwrap();
                assert!(writer.held() <= 6 * FRAME, "{}", writer.held());
            }
            drop(writer.finish().await.unwrap());
        };
        let read = async {
            let mut reader = Reader::open(far, &identities, &label(1)).await.unwrap();
            let (mut digest, mut buffer) = (Sha256::default(), vec![0; FRAME]);
            loop {
                let length = reader.read(&mut buffer).await.unwrap();
                assert!(reader.held() <= 6 * FRAME, "{}", reader.held());
                if length == 0 {
                    break digest.finish();
                }
                digest.update(&buffer[..length]);
            }
        };
        let ((), read) = tokio::join!(write, read);
        let mut whole = Sha256::default();
        (0..64).for_each(|_| whole.update(&piece));
        assert_eq!(read, whole.finish());
    });
}
