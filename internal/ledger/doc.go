// Package ledger stores the durable state of a queen in JetStream: the last snapshot of
// every hive (bucket queen_hives), the queens' verdicts on hives (bucket queen_roster),
// holds on capacity (bucket queen_holds), and the events (stream QUEEN_EVENTS). Section 6
// of docs/PROTOCOL.md is normative for their names, settings, keys and headers.
//
// Nothing here decides whether a hive or worker is alive. The queen keeps its view in
// memory and continues while JetStream is away: every call that needs JetStream then fails
// quickly, with an error that wraps ErrAway. Wait opens a ledger as soon as JetStream is
// available. Keep recreates buckets and streams that were lost, and reports it.
//
// Any number of queens write at once, without a leader. Compare-and-set on the last
// sequence of a key keeps their writes apart; for events, the deduplication window of the
// stream does.
package ledger
