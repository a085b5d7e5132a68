package peerbugs_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing/synctest"
	"time"
)

const (
	right        = "right"
	inapplicable = "–"
)

// A probe looks at one behaviour in a synctest bubble of a process of its own, and
// returns a verdict in a few words.
type probe[T any] struct {
	behaviour string
	run       func(T) string
}

const deafWork = "deaf work does not pile up behind callers that gave up"

var flightProbes = []probe[flight]{
	{"whoever asks after a result was received gets a later one", laterCallersGetLaterResults},
	{"the leader's cancellation spares the others", leaderIsCancelled},
	{"each caller returns at its own deadline", ownDeadline},
	{"the work has no caller's deadline", workDeadline},
	{"work that nobody waits for is cancelled", abandonedWork},
	{deafWork, overlap},
	{"impatient callers do not make a patient one's work begin again", patience},
	{"who comes after Forget gets later work, though the forgotten ends first", forgotten},
	{"a panic reaches the others, with its stack", func(f flight) string { return others(f, func() { panic("boom") }, true) }},
	{"panic(nil) reaches the others", func(f flight) string { return others(f, func() { panic(nil) }, false) }},
	{"runtime.Goexit reaches the others", func(f flight) string { return others(f, runtime.Goexit, false) }},
	{"work that asks for its own key gets an error", reentrant},
}

type hang struct{}

// receive waits for a day: what is not there by then will not come.
func receive[T any](c <-chan T) T {
	select {
	case v := <-c:
		return v
	case <-time.After(24 * time.Hour):
		panic(hang{})
	}
}

// join makes a call that waits, and returns where its result will be.
func join(f flight, ctx context.Context, fn work) <-chan result {
	out := make(chan result, 1)
	go func() {
		r := result{err: errGone} // unless it returns or panics
		defer func() {
			if p := recover(); p != nil {
				r = result{panicked: p}
			}
			out <- r
		}()
		r.val, r.err = f.do(ctx, "k", fn)
	}()
	synctest.Wait()
	return out
}

type result struct {
	val      int
	err      error
	panicked any
}

var errGone = errors.New("the goroutine ended")

// obedient is work that takes a second, and ends before if its context does.
func obedient(ctx context.Context) (int, error) {
	select {
	case <-time.After(time.Second):
		return 42, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func deaf(context.Context) (int, error) {
	time.Sleep(time.Second)
	return 42, nil
}

func laterCallersGetLaterResults(f flight) string {
	if received, _ := stale(f, callers, 500, nil); received > 0 {
		return "gets an old one"
	}
	return right
}

func leaderIsCancelled(f flight) string {
	ctx, cancel := context.WithCancel(context.Background())
	_ = join(f, ctx, obedient)
	follower := join(f, context.Background(), obedient)
	cancel()
	r := receive(follower)
	switch {
	case errors.Is(r.err, context.Canceled):
		return "they are cancelled"
	case r.val == 42 && r.err == nil:
		return right
	}
	return fmt.Sprint(r)
}

func ownDeadline(f flight) string {
	_ = join(f, context.Background(), deaf)
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	begin := time.Now()
	receive(join(f, ctx, deaf))
	if time.Since(begin) > time.Millisecond {
		return "waits on"
	}
	return right
}

func workDeadline(f flight) string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	verdict := right
	receive(join(f, ctx, func(ctx context.Context) (int, error) {
		if _, ok := ctx.Deadline(); ok {
			verdict = "the leader's"
		}
		return 0, nil
	}))
	return verdict
}

func abandonedWork(f flight) string {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2) // who fails with the other's context may work again
	fn := func(ctx context.Context) (int, error) {
		_, err := obedient(ctx)
		ended <- err
		return 0, err
	}
	_ = join(f, ctx, fn)
	_ = join(f, ctx, fn)
	cancel()
	if receive(ended) == nil {
		return "runs on"
	}
	return right
}

func overlap(f flight) string {
	var running, most atomic.Int64
	for range 5 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		r := join(f, ctx, func(context.Context) (int, error) {
			raise(&most, running.Add(1))
			defer running.Add(-1)
			return deaf(context.Background())
		})
		receive(r)
		cancel()
	}
	if n := most.Load(); n > 1 {
		return fmt.Sprintf("%d at once", n)
	}
	return right
}

// others tells what a caller that has joined receives when the work ends like that.
func others(f flight, end func(), stack bool) string {
	finish := make(chan struct{})
	fn := func(context.Context) (int, error) { <-finish; end(); return 7, nil }
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_ = join(f, ctx, fn)
	follower := join(f, ctx, fn)
	close(finish)
	r := receive(follower)
	switch {
	case r.err == nil && r.panicked == nil:
		return fmt.Sprintf("(%d, nil)", r.val)
	case stack && !strings.Contains(fmt.Sprint(r.err, r.panicked), "probes_test.go"):
		return "without the stack"
	}
	return right
}

func reentrant(f flight) string {
	r := receive(join(f, context.Background(), func(ctx context.Context) (int, error) {
		return f.do(ctx, "k", func(context.Context) (int, error) { return 1, nil })
	}))
	if r.err == nil && r.panicked == nil {
		return "no error"
	}
	return right
}

// patience has a caller with all the time in the world among others that come every
// 5 ms and give up after 21, while the work takes 102: no two of these coincide.
func patience(f flight) string {
	var executions atomic.Int64
	fn := func(ctx context.Context) (int, error) {
		executions.Add(1)
		select {
		case <-time.After(102 * time.Millisecond):
			return 42, nil
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	impatient := func() {
		ctx, cancel := context.WithTimeout(context.Background(), 21*time.Millisecond)
		r := join(f, ctx, fn)
		go func() { <-r; cancel() }()
		time.Sleep(5 * time.Millisecond)
	}
	impatient()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	patient := join(f, ctx, fn)
	for {
		select {
		case r := <-patient:
			if r.err != nil {
				return "fails with theirs"
			}
			return right
		default:
		}
		if executions.Load() > 1 {
			return "begins again"
		}
		impatient()
	}
}

func forgotten(f flight) string {
	if f.forget == nil {
		return inapplicable
	}
	var ends [3]chan struct{}
	var calls [3]<-chan result
	for i := range calls {
		ends[i] = make(chan struct{})
		calls[i] = join(f, context.Background(), func(context.Context) (int, error) { <-ends[i]; return i, nil })
		switch i {
		case 0:
			f.forget("k")
		case 1: // its work begins now, or when the forgotten has ended
			close(ends[0])
			receive(calls[0])
			synctest.Wait()
		}
	}
	close(ends[1])
	second := receive(calls[1])
	close(ends[2])
	switch third := receive(calls[2]); {
	case second.val == 0:
		return "gets the forgotten"
	case third.val != second.val:
		return "the entry of the later is gone"
	}
	return right
}
