// Package coalescetest is for tests of and with leases: [TestLease] is the suite
// that every [coalesce.Lease] passes, and [Store] is a lease in memory, whose
// processes a test can pause and kill.
//
// # The lease in memory
//
// A Store stands for the server, and each [Process] for a machine that uses it.
// Time is that of package time: in a testing/synctest bubble a holder that dies
// is succeeded after exactly the time to live, which costs the test nothing.
//
//	synctest.Test(t, func(t *testing.T) {
//		store := coalescetest.NewStore(10 * time.Second)
//		a, b := store.Process(), store.Process()
//		g, err := a.Acquire(t.Context(), "key")
//		...
//		a.Pause()                                 // a long garbage collection
//		err = b.Wait(t.Context(), "key")          // nil, 10 s later
//		next, err := b.Acquire(t.Context(), "key")
//		a.Resume()
//		err = a.Put(ctx, "key", g.Token(), value) // ErrFenced
//	})
//
// What it cannot show is the network: for that, run the suite on the real thing,
// through a proxy that breaks.
package coalescetest
