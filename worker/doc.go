// Package worker beats for one worker: it tells the hive of its machine, and by
// that the whole fabric, that the worker lives, what it serves and how busy it is.
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
// It is made to be embedded. It borrows the connection: it never closes it and
// never replaces its handlers. None of its methods but Run, Stop, Fail and Quiet
// waits for anything, and those are bounded; no method blocks on NATS being away.
// It never calls back into the program with a lock held, a Facts function that is
// slow or panics costs no beat, and however often a program calls, the beats keep
// to the pace of bus.Schedule. What it was given is checked when it is given: a
// beat that a hive would refuse is never sent.
//
// While NATS can not be reached no beat is sent, and none is kept for later: the
// first one after a reconnect tells how things are then.
package worker
