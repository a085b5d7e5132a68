package httpcoalesce_test

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce/httpcoalesce"
)

func private(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "private")
	w.WriteHeader(200)
}

// Those who wait are not served one after the other, as behind a lock.
func TestAResponseThatCannotBeSharedReleasesAllAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{})
		for range 10 {
			s.ask(get("/"))
		}
		require.Equal(t, 1, s.count())
		s.run(0).play(private)
		require.Equal(t, 10, s.count(), "all run while the first is not done")
		s.ask(get("/"))
		require.Equal(t, 11, s.count())
		s.ask(get("/?other"))
		s.ask(get("/?other"))
		require.Equal(t, 12, s.count(), "another key is not concerned")
		s.endAll()
		require.Equal(t, httpcoalesce.Stats{Requests: 13, Executions: 12, Joined: 10, Passed: 1, Released: 9}, s.Stats())
	})
}

func TestHitForPassEnds(t *testing.T) {
	for _, tc := range []struct{ option, ttl time.Duration }{{0, 10 * time.Second}, {time.Minute, time.Minute}} {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t, httpcoalesce.Options{HitForPass: tc.option})
			s.ask(get("/"))
			s.run(0).play(private)
			time.Sleep(tc.ttl - time.Millisecond)
			s.ask(get("/"))
			s.ask(get("/"))
			require.Equal(t, 3, s.count())
			time.Sleep(time.Millisecond)
			s.ask(get("/"))
			s.ask(get("/"))
			require.Equal(t, 4, s.count())
			s.endAll()
		})
	}
}

func TestHitForPassCanBeOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{HitForPass: -1})
		s.ask(get("/"))
		s.run(0).play(private)
		s.ask(get("/"))
		s.ask(get("/"))
		require.Equal(t, 2, s.count())
		s.endAll()
	})
}

// A response that belongs to one variant says nothing about the others.
func TestHitForPassIsOfAVariant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{})
		s.ask(get("/", "Foo: 1"))
		s.run(0).play(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Vary", "Foo")
			private(w, r)
		})
		s.ask(get("/", "Foo: 1"))
		s.ask(get("/", "Foo: 1"))
		require.Equal(t, 3, s.count())
		s.ask(get("/", "Foo: 2"))
		s.ask(get("/", "Foo: 2"))
		require.Equal(t, 4, s.count())
		s.endAll()
	})
}

// What a handler says that was cancelled since nobody was left is not remembered.
func TestAnAbandonedResponseIsNotRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{})
		a := s.ask(get("/"))
		a.leave()
		synctest.Wait()
		s.run(0).play(private)
		s.ask(get("/"))
		s.ask(get("/"))
		require.Equal(t, 2, s.count())
		s.endAll()
	})
}

// The memory is bounded: with ever new keys that cannot be shared, the oldest is
// forgotten.
func TestTheMemoryIsBounded(t *testing.T) {
	runs := 0
	h, err := httpcoalesce.New(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		runs++
		private(w, r)
	}), httpcoalesce.Options{HitForPass: time.Hour})
	require.NoError(t, err)
	for i := range 3 * httpcoalesce.MaxNotes {
		h.ServeHTTP(&browser{header: http.Header{}}, get(fmt.Sprint("/", i)))
	}
	require.Equal(t, 3*httpcoalesce.MaxNotes, runs)
	require.LessOrEqual(t, httpcoalesce.Notes(h), httpcoalesce.MaxNotes)
	require.Greater(t, httpcoalesce.Notes(h), httpcoalesce.MaxNotes*9/10)
	require.Zero(t, httpcoalesce.Flights(h))
	passed := h.Stats().Passed
	h.ServeHTTP(&browser{header: http.Header{}}, get(fmt.Sprint("/", 3*httpcoalesce.MaxNotes-1)))
	require.Equal(t, passed+1, h.Stats().Passed, "the newest is remembered")
}
