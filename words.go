package hivebeat

// State is what a worker reports about itself. A word that is not listed here is valid
// on the wire and kept unchanged. A worker in such a state is never picked for work.
type State string

// The states of a worker.
const (
	Starting State = "starting"
	Loading  State = "loading"
	Ready    State = "ready"
	Busy     State = "busy"
	Degraded State = "degraded"
	Draining State = "draining"
	Sleeping State = "sleeping" // alive, but it has put its model away until somebody wakes it
	Stopped  State = "stopped"  // goodbye: an orderly end
	Failed   State = "failed"   // goodbye: the worker gives up of its own accord
)

// States lists the known states in the order of a worker's life.
func States() []State {
	return []State{Starting, Loading, Ready, Busy, Degraded, Draining, Sleeping, Stopped, Failed}
}

// Known reports whether s is one of the listed states.
func (s State) Known() bool {
	switch s {
	case Starting, Loading, Ready, Busy, Degraded, Draining, Sleeping, Stopped, Failed:
		return true
	}
	return false
}

// Goodbye reports whether s ends its incarnation: the worker left, it did not die.
func (s State) Goodbye() bool { return s == Stopped || s == Failed }

// SameAs reports whether a change from s to t is no transition. That holds for equal
// states, and between ready and busy: these change with every request and travel in a
// beat as a fact.
func (s State) SameAs(t State) bool {
	return s == t || s.serving() && t.serving()
}

func (s State) serving() bool { return s == Ready || s == Busy }

// Live is what the fabric concludes about a worker or hive. It is separate from State:
// a worker may report ready and be lost.
type Live string

// The verdicts.
const (
	Alive      Live = "alive"
	Late       Live = "late"       // not heard from in time, but not given up
	Lost       Live = "lost"       // concluded dead; the cause says why
	Left       Live = "left"       // said goodbye
	Unverified Live = "unverified" // hives only: known only from stored state, or held by the brake
)

// Cause says why a verdict was reached.
type Cause string

// The causes.
const (
	CauseMissed     Cause = "missed"     // not heard from within its deadline
	CauseSilent     Cause = "silent"     // like missed, but its hive sees the process running: it hangs, or its beats do not arrive
	CauseLoads      Cause = "loads"      // late, but not lost: its process is reading, or taking memory
	CauseExit       Cause = "exit"       // its process was seen to end
	CauseDisconnect Cause = "disconnect" // its connection closed and did not come back
	CauseHive       Cause = "hive"       // its hive was lost, and the worker did not answer the queen itself
	CauseGoodbye    Cause = "goodbye"    // it said goodbye
)

// Values of exit with a meaning of their own. Others are "code <n>" and "signal <n>".
const (
	ExitOOM   = "oom"   // the kernel killed it for want of memory
	ExitEnded = "ended" // it is not known how
)

// Kind is the kind of an event: the last token of its subject.
type Kind string

// The kinds of events.
const (
	KindJoined     Kind = "joined"
	KindState      Kind = "state"
	KindStalled    Kind = "stalled"
	KindLooping    Kind = "looping" // workers only: it restarts repeatedly
	KindLate       Kind = "late"
	KindLost       Kind = "lost"
	KindRecovered  Kind = "recovered" // the same incarnation, after late, lost or unverified
	KindLeft       Kind = "left"
	KindRestarted  Kind = "restarted" // a higher incarnation
	KindUnverified Kind = "unverified"
	KindConflict   Kind = "conflict" // two incarnations that both advance
	KindGap        Kind = "gap"      // transitions that are no longer known
	KindBrake      Kind = "brake"

	// Kinds of events about a GPU of a hive.
	KindGPULost      Kind = "gpu-lost" // gone
	KindGPUFailing   Kind = "gpu-failing"
	KindGPUDegraded  Kind = "gpu-degraded"
	KindGPURecovered Kind = "gpu-recovered" // ok or degraded, after failing, gone or an announced degraded
	KindGPUOrphan    Kind = "gpu-orphan"    // processes of a worker that has ended still hold memory
	KindGPUForgotten Kind = "gpu-forgotten" // an operator removed a GPU that is gone

	// Kinds of events about what operators say.
	KindDrained   Kind = "drained"   // an operator drained a hive, worker or GPU
	KindUndrained Kind = "undrained" // an operator ended that

	KindForgotten Kind = "forgotten" // an operator removed a hive that was lost or left

	KindSilenced   Kind = "silenced"   // an operator silenced a hive or worker
	KindUnsilenced Kind = "unsilenced" // an operator ended that
)

// Values of collect for a source that are not errors.
const (
	CollectOK   = "ok"
	CollectNone = "none" // nothing to collect: no GPU in the machine
)
