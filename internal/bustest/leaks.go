package bustest

import "go.uber.org/goleak"

// Leaks returns what goleak is to overlook in packages that publish to JetStream:
// nats.go 1.55 starts a goroutine with the first asynchronous publish that reads
// its channel from a field; CleanupPublisher clears that field, and a goroutine
// that has not come to run by then waits on nothing for ever.
func Leaks() goleak.Option {
	return goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect")
}
