package peerbugs_test

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing/synctest"
	"time"
)

var cacheProbes = []probe[func(work) cache]{
	{"who asks after Invalidate gets a load that began after it", loadAfterInvalidate},
	{"a load is not kept if its key was invalidated meanwhile", invalidatedLoad},
	{"a value that is set during a load stays", setDuringLoad},
	{"a refresh is not kept if its key was invalidated meanwhile", invalidatedRefresh},
	{"a value that is set during a refresh stays", setDuringRefresh},
	{"readers of one old value set off one refresh", oneRefresh},
	{"a refresh outlives the caller that set it off", refreshOutlives},
	{"a refresh that fails leaves the value", func(c func(work) cache) string {
		return refreshEnds(c, func() (int, error) { return 0, errors.New("down") })
	}},
	{"a refresh that panics leaves the value and the process", func(c func(work) cache) string {
		return refreshEnds(c, func() (int, error) { panic("boom") })
	}},
	{"a refresh that calls runtime.Goexit is followed by another", func(c func(work) cache) string {
		return refreshEnds(c, func() (int, error) { runtime.Goexit(); return 0, nil })
	}},
}

// get makes a call that waits, and returns where its result will be.
func get(c cache, ctx context.Context) <-chan result {
	return join(flight{do: func(ctx context.Context, key string, _ work) (int, error) { return c.get(ctx, key) }}, ctx, nil)
}

// read is a get that does not wait long.
func read(c cache) result { return receive(get(c, context.Background())) }

// steps is a load whose n-th execution returns n when its channel is closed, and at
// once if it is later than those.
type steps struct {
	executions atomic.Int64
	ends       [4]chan struct{} // from 1 on
}

func newSteps(held ...int) *steps {
	s := &steps{}
	for _, n := range held {
		s.ends[n] = make(chan struct{})
	}
	return s
}

func (s *steps) load(context.Context) (int, error) {
	n := int(s.executions.Add(1))
	if n < len(s.ends) && s.ends[n] != nil {
		<-s.ends[n]
	}
	return n, nil
}

func (s *steps) finish(n int) {
	close(s.ends[n])
	synctest.Wait()
}

func loadAfterInvalidate(newCache func(work) cache) string {
	s := newSteps(1)
	c := newCache(s.load)
	_ = get(c, context.Background())
	c.invalidate("k")
	later := get(c, context.Background())
	s.finish(1)
	if receive(later).val == 1 {
		return "gets the one before"
	}
	return right
}

func invalidatedLoad(newCache func(work) cache) string {
	s := newSteps(1)
	c := newCache(s.load)
	_ = get(c, context.Background())
	c.invalidate("k")
	s.finish(1)
	if read(c).val == 1 {
		return "is kept"
	}
	return right
}

func setDuringLoad(newCache func(work) cache) string {
	s := newSteps(1)
	c := newCache(s.load)
	_ = get(c, context.Background())
	c.set("k", 100)
	s.finish(1)
	if read(c).val != 100 {
		return "is overwritten"
	}
	return right
}

// refreshing returns a cache that has loaded a value, and whose refresh of it, its
// second execution, is under way.
func refreshing(newCache func(work) cache) (cache, *steps) {
	s := newSteps(2)
	c := newCache(s.load)
	read(c)
	time.Sleep(2 * time.Minute)
	read(c)
	synctest.Wait()
	return c, s
}

func invalidatedRefresh(newCache func(work) cache) string {
	c, s := refreshing(newCache)
	c.invalidate("k")
	s.finish(2)
	if read(c).val == 2 {
		return "is kept"
	}
	return right
}

func setDuringRefresh(newCache func(work) cache) string {
	c, s := refreshing(newCache)
	c.set("k", 100)
	s.finish(2)
	if read(c).val != 100 {
		return "is overwritten"
	}
	return right
}

func oneRefresh(newCache func(work) cache) string {
	c, s := refreshing(newCache)
	for range 10 {
		read(c)
	}
	synctest.Wait()
	if s.executions.Load() > 2 {
		return "more than one"
	}
	return right
}

func refreshOutlives(newCache func(work) cache) string {
	var executions atomic.Int64
	c := newCache(func(ctx context.Context) (int, error) {
		n := executions.Add(1)
		_, err := obedient(ctx)
		return int(n), err
	})
	read(c)
	time.Sleep(2 * time.Minute)
	ctx, cancel := context.WithCancel(context.Background())
	receive(get(c, ctx))
	cancel()
	time.Sleep(2 * time.Second)
	if read(c).val != 2 {
		return "ends with it"
	}
	return right
}

// refreshEnds tells what is there when the refresh ended like that, and whether
// another follows.
func refreshEnds(newCache func(work) cache, end func() (int, error)) string {
	var executions atomic.Int64
	c := newCache(func(context.Context) (int, error) {
		if n := executions.Add(1); n != 2 {
			return int(n), nil
		}
		return end()
	})
	read(c)
	time.Sleep(2 * time.Minute)
	read(c)
	synctest.Wait()
	if r := read(c); r.val == 0 {
		return "it is gone"
	}
	for range 10 {
		time.Sleep(2 * time.Minute)
		read(c)
		synctest.Wait()
	}
	if executions.Load() == 2 {
		return "no other follows"
	}
	return right
}
