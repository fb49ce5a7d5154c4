package hivebeat

import "time"

// Histogram counts durations by their length. Hives and queens report how long their
// verdicts took in this form.
type Histogram struct {
	N   uint64        // number of durations
	Sum time.Duration // of all durations
	Max time.Duration // the longest duration
	// Buckets are in ascending order. Durations beyond the last bucket are in N alone.
	Buckets []Bucket
}

// Bucket counts the durations above the UpTo of the bucket before, up to and including
// its own.
type Bucket struct {
	UpTo time.Duration
	N    uint64
}
