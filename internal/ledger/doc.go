// Package ledger holds all that a queen keeps in JetStream: the last snapshot of
// every hive (bucket queen_hives), its own verdicts on hives (bucket
// queen_roster), places for work that are held (bucket queen_holds), and the events
// (stream QUEEN_EVENTS). docs/PROTOCOL.md, section
// 6, is normative for their names, settings, keys and headers.
//
// Nothing here decides who is alive. The queen's view is in memory and goes on
// while JetStream is away: every call that needs it then fails soon, with an
// error that wraps ErrAway. Wait opens a ledger as soon as JetStream is there,
// and Keep makes again what was lost and tells when that happened.
//
// Any number of queens write at once, and there is no leader. What keeps them
// apart is compare-and-set on the last sequence of a key, and for events the
// stream's window of duplicates.
package ledger
