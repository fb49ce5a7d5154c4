package hivebeat

import "time"

// Version is the version of the wire format: the v of every message.
const Version = 1

// Limits of the wire. A message that exceeds one of them is refused as a whole.
const (
	MaxID       = 64      // bytes of an id: hive, worker, prefix
	MaxBeat     = 8 << 10 // bytes of a Beat
	MaxDepth    = 8       // nesting of maps and arrays
	MaxState    = 32      // bytes of state, live and cause
	MaxReason   = 256     // bytes of reason and bye
	MaxModel    = 256     // bytes of model
	MaxEndpoint = 512     // bytes of endpoint
	MaxConn     = 128     // bytes of conn and ns
	MaxLabels   = 32      // pairs of labels
	MaxLabelKey = 63      // bytes of a label's key
	MaxLabelVal = 128     // bytes of a label's value
	MaxGPUs     = 64      // entries of a gpus array
	MaxGPUID    = 64      // bytes of a GPU's UUID
	MaxData     = 1 << 10 // bytes of data
	MaxEngine   = 64      // bytes of engine, ver and exit
	MaxAdapters = 32      // entries of each list of lora
	MaxAdapter  = 128     // bytes of an adapter's name
	MaxCold     = 64      // entries of cold, each of MaxModel bytes

	MaxHostText = 256 // bytes of host in a beat, of a text in host of a snapshot, of a GPU's name or err, of a value in collect
	MaxSources  = 16  // pairs of collect

	MaxWorkers     = 10_000 // workers of one hive
	MaxPages       = 1_000  // pages of one snapshot
	MaxTransitions = 8      // transitions a worker's record carries

	// MaxLeap is how far the seq of a message may be above the last seq of its
	// incarnation while that incarnation is alive. No sender sends that many messages
	// in a day.
	MaxLeap = 1_000_000

	// MaxInt is the greatest integer on the wire, 2^53 - 1. Above it a reader of the
	// JSON forms would see a different number from the one sent.
	MaxInt = 1<<53 - 1
)

// Limits of the times on the wire.
const (
	MinEvery = 100 * time.Millisecond // least promise: every
	MaxEvery = time.Hour              // greatest promise: every
	MaxQuiet = 10 * time.Minute       // longest announced silence: quiet
	MaxAhead = 7 * 24 * time.Hour     // an inc further ahead than this, of both the receiver's clock and the live inc, does not replace the live one
)

// Defaults that both ends of the wire agree on.
const (
	WorkerEvery        = 30 * time.Second       // a worker's promise
	HiveEvery          = 15 * time.Second       // a hive's promise
	WorkerRollSpread   = 500 * time.Millisecond // spread of an empty roll call to workers
	HiveRollSpread     = time.Second            // spread of an empty roll call to hives
	Fresh              = 45 * time.Second       // the age up to which a record may be shown as alive
	KeepGone           = 10 * time.Minute       // how long lost and left workers stay listed
	TransitionsCarried = 60 * time.Second       // how long a record carries a transition
)
