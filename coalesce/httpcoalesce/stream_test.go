package httpcoalesce_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
	"github.com/evenkeel-go/evenkeel/coalesce/httpcoalesce"
)

func TestEveryClientGetsWhatIsFlushedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{})
		a, b := s.ask(get("/")), s.ask(get("/"))
		require.Equal(t, 1, s.count())
		x := s.run(0)
		x.play(flush)
		require.Equal(t, "streaming", a.state(), "the header, without a body")
		require.Equal(t, []int{0}, b.flushed)
		x.play(write("one "))
		require.Empty(t, b.text(), "not flushed yet")
		x.play(flush)
		late := s.ask(get("/"))
		for _, c := range []*browser{a, b, late} {
			require.Equal(t, "one ", c.text())
			require.Equal(t, 4, c.flushed[len(c.flushed)-1])
		}
		x.play(write("two"))
		x.play(write(strings.Repeat("x", 4096)))
		require.Equal(t, "one two"+strings.Repeat("x", 4096), a.text(), "much is sent without being flushed")
		x.end()
		for _, c := range []*browser{a, b, late} {
			require.Equal(t, "done", c.state())
			require.Equal(t, a.text(), c.text())
			require.NotContains(t, c.flushed, len(a.text()))
		}
		require.Equal(t, 1, s.count())
		require.Equal(t, httpcoalesce.Stats{Requests: 3, Executions: 1, Joined: 2}, s.Stats())
	})
}

func TestAFinishedResponseIsNotJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{})
		slow := &browser{read: make(chan struct{})}
		slow.ask(s, get("/"))
		synctest.Wait()
		s.run(0).play(write("old"))
		s.run(0).end()
		require.Equal(t, "streaming", slow.state())
		next := s.ask(get("/"))
		require.Equal(t, 2, s.count())
		s.run(1).play(write("new"))
		s.run(1).end()
		require.Equal(t, "new", next.text())
		slow.read <- struct{}{}
		synctest.Wait()
		require.Equal(t, "old", slow.text())
		require.Equal(t, "done", slow.state())
	})
}

func TestALateClientStartsAnewWhenTheBeginningIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{MaxBuffer: 8})
		a := s.ask(get("/"))
		s.run(0).play(write("01234567"))
		s.run(0).play(flush)
		b := s.ask(get("/"))
		require.Equal(t, 1, s.count())
		require.Equal(t, "01234567", b.text())
		s.run(0).play(write("8"))
		c := s.ask(get("/"))
		require.Equal(t, 2, s.count())
		d := s.ask(get("/"))
		require.Equal(t, 2, s.count(), "the new flight takes the place of the old one")
		s.run(0).end()
		s.run(1).play(write("9"))
		s.run(1).end()
		require.Equal(t, []string{"012345678", "012345678", "9", "9"}, []string{a.text(), b.text(), c.text(), d.text()})
	})
}

func TestASlowClientStallsNobodyAndIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{MaxBuffer: 100})
		fast := s.ask(get("/"))
		slow := &browser{read: make(chan struct{})}
		slow.ask(s, get("/"))
		synctest.Wait()
		text := strings.Repeat("0123456789", 11)
		for i := range 10 {
			s.run(0).play(write(text[i*10 : i*10+10]))
			s.run(0).play(flush)
		}
		require.Equal(t, text[:100], fast.text())
		require.Equal(t, "streaming", slow.state(), "100 bytes behind")
		s.run(0).play(write(text[100:]))
		s.run(0).play(flush)
		require.Equal(t, text, fast.text())
		require.EqualValues(t, 1, s.Stats().Slow)
		slow.read <- struct{}{}
		synctest.Wait()
		require.Equal(t, "aborted", slow.state())
		require.Equal(t, http.ErrAbortHandler, slow.panicked)
		s.run(0).end()
		require.Equal(t, "done", fast.state())
	})
}

// The handler runs no further ahead than the window, and goes on when one of its
// clients reads: the others then have the whole window to catch up.
func TestTheHandlerIsHeldBackByAllClientsOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{MaxBuffer: 100})
		a := &browser{read: make(chan struct{})}
		b := &browser{read: make(chan struct{})}
		a.ask(s, get("/"))
		b.ask(s, get("/"))
		synctest.Wait()
		wrote := 0
		s.run(0).play(func(w http.ResponseWriter, _ *http.Request) {
			for range 30 {
				n, err := w.Write([]byte("0123456789"))
				if err != nil {
					break
				}
				wrote += n
			}
		})
		synctest.Wait()
		require.Equal(t, 100, wrote)
		close(a.read)
		synctest.Wait()
		require.Equal(t, 300, wrote)
		close(b.read)
		s.run(0).end()
		require.Equal(t, strings.Repeat("0123456789", 30), a.text())
		require.Equal(t, "aborted", b.state())
	})
}

func TestALargeWriteGoesThroughASmallWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, buffer := range []int{1, 7, 1000, 1 << 20} {
			s := newStage(t, httpcoalesce.Options{MaxBuffer: buffer})
			a := s.ask(get("/"))
			text := strings.Repeat("0123456789", 7_000)
			s.run(0).play(write(text))
			s.run(0).end()
			require.Equal(t, text, a.text())
			require.Equal(t, "done", a.state())
		}
	})
}

func TestAClientThatLeavesEndsOnlyItsOwnResponse(t *testing.T) {
	for _, first := range []bool{true, false} {
		for _, how := range []string{"disconnect", "write"} {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, httpcoalesce.Options{})
				a, b := s.ask(get("/")), s.ask(get("/"))
				stays, leaves := a, b
				if first {
					stays, leaves = b, a
				}
				s.run(0).play(write("one "))
				s.run(0).play(flush)
				if how == "disconnect" {
					leaves.leave()
				} else {
					leaves.mu.Lock()
					leaves.broken = true
					leaves.mu.Unlock()
				}
				s.run(0).play(write("two"))
				s.run(0).play(flush)
				require.Equal(t, http.ErrAbortHandler, leaves.panicked)
				require.NoError(t, s.run(0).r.Context().Err())
				s.run(0).end()
				require.Equal(t, "one two", stays.text())
				require.Equal(t, "done", stays.state())
				require.Zero(t, s.Stats().Abandoned)
			})
		}
	}
}

func TestTheFirstClientMayLeaveBeforeTheHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{})
		a, b := s.ask(get("/")), s.ask(get("/"))
		a.leave()
		synctest.Wait()
		s.run(0).play(write("body"))
		s.run(0).end()
		require.Equal(t, "aborted", a.state())
		require.Equal(t, "body", b.text())
	})
}

type valueKey struct{}

// The handler's request has the first client's values, no client's deadline, and ends
// when the last has left, which stays until the handler has returned.
func TestTheHandlersContextEndsWithTheLastClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{})
		r := get("/")
		ctx, cancel := context.WithTimeout(context.WithValue(r.Context(), valueKey{}, "first"), time.Second)
		defer cancel()
		a := s.ask(r.WithContext(ctx))
		b := s.ask(get("/"))
		inner := s.run(0).r.Context()
		require.Equal(t, "first", inner.Value(valueKey{}))
		_, has := inner.Deadline()
		require.False(t, has)
		time.Sleep(time.Second)
		synctest.Wait()
		require.NoError(t, inner.Err())
		b.leave()
		synctest.Wait()
		require.ErrorIs(t, context.Cause(inner), coalesce.ErrAbandoned)
		require.Equal(t, "waiting", b.state(), "the handler has not returned yet")
		c := s.ask(get("/"))
		require.Equal(t, 2, s.count(), "an abandoned flight is not joined")
		var err error
		s.run(0).play(func(w http.ResponseWriter, _ *http.Request) { _, err = w.Write([]byte("x")) })
		require.ErrorIs(t, err, coalesce.ErrAbandoned)
		s.run(0).end()
		require.Equal(t, "aborted", a.state())
		require.Equal(t, "aborted", b.state())
		s.run(1).end()
		require.Equal(t, "done", c.state())
		require.EqualValues(t, 1, s.Stats().Abandoned)
		require.Zero(t, s.Stats().InFlight)
	})
}

func TestAHandlerThatIsHeldBackEndsWithItsLastClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{MaxBuffer: 4})
		a := &browser{read: make(chan struct{})}
		a.ask(s, get("/"))
		synctest.Wait()
		var err error
		s.run(0).play(func(w http.ResponseWriter, _ *http.Request) { _, err = w.Write(make([]byte, 100)) })
		synctest.Wait()
		require.NoError(t, err)
		a.mu.Lock()
		a.broken = true
		a.mu.Unlock()
		close(a.read)
		synctest.Wait()
		require.ErrorIs(t, err, coalesce.ErrAbandoned)
		s.run(0).end()
		require.Equal(t, "aborted", a.state())
	})
}

func TestTimeoutIsTheHandlersDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, err := httpcoalesce.New(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			w.WriteHeader(http.StatusGatewayTimeout)
		}), httpcoalesce.Options{Timeout: time.Minute})
		require.NoError(t, err)
		start := time.Now()
		a := ask(h, get("/"))
		time.Sleep(30 * time.Second)
		b := ask(h, get("/"))
		time.Sleep(30 * time.Second)
		synctest.Wait()
		require.Equal(t, time.Minute, time.Since(start))
		require.Equal(t, 504, a.status)
		require.Equal(t, 504, b.status)
	})
}

// A body that cannot be finished because the time is over is not a short one that
// looks complete.
func TestATimeoutInTheMiddleOfAWriteAborts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{Timeout: time.Minute, MaxBuffer: 4})
		a := &browser{read: make(chan struct{})}
		a.ask(s, get("/"))
		synctest.Wait()
		s.run(0).play(write("0123456789"))
		time.Sleep(time.Minute)
		synctest.Wait()
		s.run(0).end()
		close(a.read)
		synctest.Wait()
		require.Equal(t, http.ErrAbortHandler, a.panicked)
	})
}

func TestALateClientComesWhileTheResponseIsFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{})
		s.ask(get("/"))
		s.run(0).play(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "max-age=10, stale-while-revalidate=5")
			w.(http.Flusher).Flush()
		})
		time.Sleep(14 * time.Second)
		s.ask(get("/"))
		require.Equal(t, 1, s.count())
		time.Sleep(time.Second)
		s.ask(get("/"))
		require.Equal(t, 2, s.count())
		s.endAll()
	})
}

// All clients but the fastest would be cut off.
func TestABodyThatIsKnownToBeTooLongIsNotShared(t *testing.T) {
	for _, tc := range []struct {
		method, length string
		status, want   int
	}{{"GET", "100", 200, 1}, {"GET", "101", 200, 2}, {"HEAD", "101", 200, 1}, {"GET", "101", 304, 1}} {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t, httpcoalesce.Options{MaxBuffer: 100})
			s.ask(request(tc.method, "/"))
			s.ask(request(tc.method, "/"))
			s.run(0).play(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", tc.length)
				w.WriteHeader(tc.status)
			})
			require.Equal(t, tc.want, s.count(), "%+v", tc)
			s.endAll()
		})
	}
}

// The slowest client leaves, so that the others have room.
func TestAHandlerThatIsHeldBackGoesOnWhenAClientLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{MaxBuffer: 100})
		slowest := &browser{read: make(chan struct{})}
		slow := &browser{read: make(chan struct{})}
		slowest.ask(s, get("/"))
		slow.ask(s, get("/"))
		synctest.Wait()
		wrote := 0
		s.run(0).play(func(w http.ResponseWriter, _ *http.Request) {
			for range 12 {
				n, _ := w.Write(make([]byte, 10))
				w.(http.Flusher).Flush()
				wrote += n
			}
		})
		require.Equal(t, 100, wrote)
		slow.read <- struct{}{}
		synctest.Wait()
		require.Equal(t, 100, wrote, "the slowest has read nothing")
		slowest.mu.Lock()
		slowest.broken = true
		slowest.mu.Unlock()
		slowest.read <- struct{}{}
		synctest.Wait()
		require.Equal(t, "aborted", slowest.state())
		require.Equal(t, 110, wrote, "the other one has read 10")
		close(slow.read)
		s.run(0).end()
		require.Equal(t, "done", slow.state())
		require.Len(t, slow.text(), 120)
	})
}

// A client whose context has ended is not sent what it has not got yet.
func TestAClientThatHasLeftIsSentNothingMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{})
		a := &browser{read: make(chan struct{})}
		a.ask(s, get("/"))
		b := s.ask(get("/"))
		s.run(0).play(write(strings.Repeat("x", 100_000)))
		a.leave()
		close(a.read)
		synctest.Wait()
		require.Equal(t, "aborted", a.state())
		require.Less(t, len(a.text()), 50_000)
		s.endAll()
		require.Len(t, b.text(), 100_000)
	})
}
