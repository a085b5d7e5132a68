package httpcoalesce_test

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce"
	"github.com/evenkeel-go/evenkeel/coalesce/httpcoalesce"
)

var errBoom = errors.New("boom")

func explode(http.ResponseWriter, *http.Request) { panic(errBoom) }

// TestAnAbortIsAnAbortForAll: however the handler fails, before its header or in the
// middle of its body, each client's connection breaks.
func TestAnAbortIsAnAbortForAll(t *testing.T) {
	short := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		_, _ = w.Write([]byte("12345"))
	}
	for name, tc := range map[string]struct {
		first, last func(http.ResponseWriter, *http.Request)
		status      int
	}{
		"ErrAbortHandler":        {nil, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 0},
		"ErrAbortHandler, later": {write("12345"), func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 200},
		"panic":                  {nil, explode, 0},
		"panic, later":           {write("12345"), explode, 200},
		"panic(nil)":             {nil, func(http.ResponseWriter, *http.Request) { panic(nil) }, 0}, //nolint:govet // on purpose
		"Goexit":                 {nil, func(http.ResponseWriter, *http.Request) { runtime.Goexit() }, 0},
		"Goexit, later":          {write("12345"), func(http.ResponseWriter, *http.Request) { runtime.Goexit() }, 200},
		"short body":             {short, nil, 200},
		"no body":                {nil, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "10") }, 0},
		"refused bytes": {nil, func(w http.ResponseWriter, r *http.Request) {
			short(w, r)
			_, err := w.Write([]byte("678901"))
			require.ErrorIs(t, err, http.ErrContentLength)
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, httpcoalesce.Options{})
				clients := []*browser{s.ask(get("/")), s.ask(get("/")), s.ask(get("/"))}
				if tc.first != nil {
					s.run(0).play(tc.first)
					s.run(0).play(flush)
				}
				if tc.last != nil {
					s.run(0).play(tc.last)
				}
				select {
				case <-s.run(0).over:
				default:
					s.run(0).end()
				}
				for _, c := range clients {
					require.Equal(t, "aborted", c.state())
					require.Equal(t, tc.status, c.status)
					if tc.status != 0 {
						require.Equal(t, "12345", c.text(), "what was flushed has been sent")
					}
				}
				next := s.ask(get("/"))
				require.Equal(t, 2, s.count(), "a flight that was aborted is not joined")
				s.run(1).end()
				require.Equal(t, "done", next.state())
				require.EqualValues(t, 1, s.Stats().Aborted)
				require.Zero(t, s.Stats().InFlight)
			})
		})
	}
}

func TestAPanicCarriesTheHandlersStack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{})
		a, b := s.ask(get("/")), s.ask(get("/"))
		s.run(0).play(explode)
		p, ok := a.panicked.(*coalesce.PanicError)
		require.True(t, ok)
		require.Same(t, p, b.panicked)
		require.ErrorIs(t, p, errBoom)
		require.Contains(t, string(p.Stack), "httpcoalesce_test.explode")
	})
}

func TestAPanicOfAPanicErrorKeepsItsStack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{})
		a := s.ask(get("/"))
		inner := &coalesce.PanicError{Value: "inner", Stack: []byte("stack")}
		s.run(0).play(func(http.ResponseWriter, *http.Request) { panic(inner) })
		require.Same(t, inner, a.panicked)
	})
}

// A panic when every client has left reaches the server through the last of them.
func TestAPanicOfAnAbandonedHandlerIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{})
		a, b := s.ask(get("/")), s.ask(get("/"))
		b.leave()
		synctest.Wait()
		require.Equal(t, http.ErrAbortHandler, b.panicked)
		a.leave()
		synctest.Wait()
		s.run(0).play(explode)
		require.ErrorIs(t, a.panicked.(error), errBoom)
	})
}

// The first client has left when its response turns out to be for it alone: nobody
// gets it, and the first client stays with the handler until it returns.
func TestAResponseForAClientThatHasLeftIsNobodys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{})
		a, b := s.ask(get("/")), s.ask(get("/"))
		a.leave()
		synctest.Wait()
		require.Equal(t, "waiting", a.state())
		s.run(0).play(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Set-Cookie", "session=a")
			w.WriteHeader(200)
		})
		require.ErrorIs(t, s.run(0).r.Context().Err(), context.Canceled)
		require.Equal(t, 2, s.count(), "the other runs on its own")
		require.Equal(t, "waiting", a.state())
		s.run(1).end()
		require.Equal(t, "done", b.state())
		require.Empty(t, b.sent.Get("Set-Cookie"))
		s.run(0).play(explode)
		require.ErrorIs(t, a.panicked.(error), errBoom)
	})
}
