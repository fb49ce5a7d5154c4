package bustest

import "go.uber.org/goleak"

// Leaks returns the goroutine that goleak must ignore in packages that publish to
// JetStream. On the first asynchronous publish, nats.go 1.55 starts a goroutine that
// reads its channel from a field. CleanupPublisher clears that field, and a goroutine
// that has not run by that time waits forever on a nil channel.
func Leaks() goleak.Option {
	return goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect")
}
