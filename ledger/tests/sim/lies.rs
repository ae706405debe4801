//! What a broken engine or store would do. A simulation with one of these has to be found out.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// None: everything as it should be.
    Truthful,
    /// A batch is written wherever the head is.
    FenceDropped,
    /// The same, and entries need not continue their accounts.
    FenceAndVersionDropped,
    /// The head's epoch is not compared.
    EpochIgnored,
    /// A key that is in use is written again.
    KeysNotUnique,
    /// A key is answered whatever the request was.
    FingerprintSkipped,
    /// A batch is confirmed before it is committed.
    AnsweredEarly,
    /// A batch is confirmed and never committed.
    Lost,
    /// The head stays behind what was written now and then.
    SequenceReused,
    /// Reads show what was there a while ago.
    StaleReads,
}
