// Package worker sends the beats of one worker. They report to the hive of its
// machine, and thereby to the whole fabric, that the worker is alive, which
// model it serves and how busy it is.
//
//	w, err := worker.New(nc, worker.Config{Hive: "gpu-01", ID: "llama", Model: "llama-3-8b"})
//	if err != nil {
//		return err
//	}
//	go w.Run(ctx) // beats until ctx ends, then says goodbye
//	…
//	w.SetState(hivebeat.Degraded, "cache disk is full")
//	w.Update(func(f *worker.Facts) { f.Busy++ })
//
// The package is made to be embedded. It borrows the connection: it never
// closes it and never replaces its handlers. No method except Run, Stop, Fail
// and Quiet waits for anything, and those waits are bounded; no method blocks
// because NATS is away. The package never calls back into the program with a
// lock held. A Facts function that is slow or panics costs no beat. However
// often a program calls, the beats keep to the pace of bus.Schedule. Input is
// checked when it is passed in: a beat that a hive would refuse is never sent.
//
// While NATS cannot be reached no beat is sent, and none is kept for later. The
// first beat after a reconnect reports the current state.
package worker
