package httpcoalesce_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce/httpcoalesce"
)

// handlers are what a handler can do with a ResponseWriter, by name.
var handlers = map[string]http.HandlerFunc{
	"nothing":      func(http.ResponseWriter, *http.Request) {},
	"header only":  func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("A", "b") },
	"empty write":  func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(nil) },
	"status twice": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404); w.WriteHeader(200) },
	"implicit 200": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "x"); w.WriteHeader(404) },
	"html": func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "<ht")
		_, _ = io.WriteString(w, "ml><body>x")
	},
	"flush before all of the type is known": func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "<ht")
		w.(http.Flusher).Flush()
		_, _ = io.WriteString(w, "ml><body>x")
	},
	"type given": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/x")
		_, _ = io.WriteString(w, "<html>")
	},
	"type suppressed": func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = nil
		_, _ = io.WriteString(w, "<html>")
	},
	"encoded": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "br")
		_, _ = io.WriteString(w, "<html>")
	},
	"large": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 100_000)) },
	"length": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "3")
		_, _ = io.WriteString(w, "abc")
	},
	"204 with a body": func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(204)
		_, _ = io.WriteString(w, "abc")
	},
	"304": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Etag", `"x"`)
		w.Header().Set("Content-Length", "10")
		w.WriteHeader(304)
	},
	"404":      http.NotFound,
	"redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", http.StatusMovedPermanently) },
	"header after": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("A", "b")
		_, _ = io.WriteString(w, "x")
		w.Header().Set("A", "c")
		w.Header().Set("B", "c")
	},
	"trailers": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "A, B")
		w.Header().Add("Trailer", "C")
		w.Header().Set("B", "before")
		_, _ = io.WriteString(w, "x")
		w.(http.Flusher).Flush()
		w.Header().Set("A", "1")
		w.Header().Set("B", "2")
		w.Header().Set(http.TrailerPrefix+"D", "4")
	},
}

// exchange is what the client of a real server sees of a response.
type exchange struct {
	Status          int
	Length          int64
	Chunked         bool
	Header, Trailer http.Header
	Body            string
	Broken          bool
}

func fetch(t *testing.T, client *http.Client, method, url string) exchange {
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	require.NoError(t, err)
	resp, err := client.Do(r)
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, resp.Body.Close())
	resp.Header.Del("Date")
	return exchange{resp.StatusCode, resp.ContentLength, len(resp.TransferEncoding) > 0, resp.Header, resp.Trailer, string(body), err != nil}
}

// servers starts the handler on HTTP/1.1 and on HTTP/2.
func servers(t *testing.T, h http.Handler, f func(t *testing.T, s *httptest.Server)) {
	for _, version := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(version, func(t *testing.T) {
			s := httptest.NewUnstartedServer(h)
			s.EnableHTTP2 = version == "HTTP/2.0"
			if s.EnableHTTP2 {
				s.StartTLS()
			} else {
				s.Start()
			}
			defer s.Close()
			s.Client().CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			f(t, s)
		})
	}
}

// TestAClientSeesNoDifference compares what a client sees of a handler with what it
// sees of the same handler behind a Handler.
func TestAClientSeesNoDifference(t *testing.T) {
	mux := http.NewServeMux()
	for name, h := range handlers {
		path := strings.ReplaceAll(name, " ", "_")
		collapsed, err := httpcoalesce.New(h, httpcoalesce.Options{})
		require.NoError(t, err)
		mux.Handle("/direct/"+path, h)
		mux.Handle("/collapsed/"+path, collapsed)
	}
	servers(t, mux, func(t *testing.T, s *httptest.Server) {
		for name := range handlers {
			path := strings.ReplaceAll(name, " ", "_")
			for _, method := range []string{"GET", "HEAD"} {
				direct := fetch(t, s.Client(), method, s.URL+"/direct/"+path)
				collapsed := fetch(t, s.Client(), method, s.URL+"/collapsed/"+path)
				require.Equal(t, direct, collapsed, "%s %s", method, name)
			}
		}
	})
}

func TestWhatNeedsAConnectionIsNotSupported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{})
		a := s.ask(get("/"))
		s.run(0).play(func(w http.ResponseWriter, _ *http.Request) {
			rc := http.NewResponseController(w)
			require.ErrorIs(t, rc.SetReadDeadline(time.Time{}), http.ErrNotSupported)
			require.ErrorIs(t, rc.SetWriteDeadline(time.Time{}), http.ErrNotSupported)
			require.ErrorIs(t, rc.EnableFullDuplex(), http.ErrNotSupported)
			_, _, err := rc.Hijack()
			require.ErrorIs(t, err, http.ErrNotSupported)
			require.NoError(t, rc.Flush())
		})
		require.Equal(t, 200, a.status)
		w := s.run(0).w
		s.endAll()
		_, err := w.Write([]byte("x"))
		require.Error(t, err, "the handler has returned")
		require.Error(t, http.NewResponseController(w).Flush())
	})
}

// As net/http does: what is too much is refused, also in smaller pieces, and a
// Content-Length that is no number is no promise.
func TestContentLength(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{})
		a := s.ask(get("/"))
		s.run(0).play(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "3")
			_, err := w.Write([]byte("abc"))
			require.NoError(t, err)
			_, err = w.Write([]byte("d"))
			require.ErrorIs(t, err, http.ErrContentLength)
		})
		s.run(0).end()
		require.Equal(t, "abc", a.text())
		require.Equal(t, "done", a.state())
		b := s.ask(get("/"))
		s.run(1).play(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "x")
			_, err := w.Write([]byte("abc"))
			require.NoError(t, err)
		})
		s.run(1).end()
		require.Equal(t, "abc", b.text())
		require.Empty(t, b.sent.Get("Content-Length"))
		c := s.ask(get("/"))
		s.run(2).play(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(304)
			_, err := w.Write([]byte("abc"))
			require.ErrorIs(t, err, http.ErrBodyNotAllowed)
		})
		s.run(2).end()
		require.Equal(t, "done", c.state())
	})
}

func TestInformationalResponsesAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{})
		a := s.ask(get("/"))
		s.run(0).play(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
		})
		b := s.ask(get("/"))
		require.Equal(t, "waiting", a.state())
		s.run(0).play(write("x"))
		s.endAll()
		for _, c := range []*browser{a, b} {
			require.Equal(t, 200, c.status)
			require.Equal(t, "</style.css>; rel=preload", c.sent.Get("Link"), "it is in the response, as net/http has it")
		}
	})
}

func TestAnInvalidStatusPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{})
		a := s.ask(get("/"))
		s.run(0).play(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(99) })
		require.ErrorContains(t, a.panicked.(error), "invalid WriteHeader code 99")
	})
}

// What middleware outside has set for one client is for that client, and what the
// handler sets comes on top.
func TestFieldsSetOutside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{})
		outside := func(id string) *browser {
			b := ask(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Request-Id", id)
				w.Header().Set("Server", "outside")
				w.Header().Set("Vary", "Origin")
				w.Header().Set("Set-Cookie", "visit="+id)
				s.ServeHTTP(w, r)
			}), get("/"))
			return b
		}
		a := outside("1")
		synctest.Wait()
		b := outside("2")
		synctest.Wait()
		s.run(0).play(func(w http.ResponseWriter, _ *http.Request) {
			require.Empty(t, w.Header())
			w.Header().Set("Server", "inside")
			w.Header().Set("Vary", "Accept")
			w.WriteHeader(200)
		})
		s.endAll()
		require.Equal(t, 1, s.count())
		for id, c := range map[string]*browser{"1": a, "2": b} {
			require.Equal(t, http.Header{
				"Request-Id": {id}, "Server": {"inside"}, "Vary": {"Origin", "Accept"}, "Set-Cookie": {"visit=" + id},
			}, c.sent)
		}
	})
}

// Each client has its own copy of the header, and of the trailers.
func TestClientsMayChangeTheirHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{})
		a, b := s.ask(get("/")), s.ask(get("/"))
		s.run(0).play(func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["X"] = []string{"1", "2"}
			w.Header().Set("Trailer", "T")
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			w.Header()["X"][0] = "handler"
			w.Header()["T"] = []string{"3"}
		})
		a.header["X"][0] = "changed"
		a.header["X"] = append(a.header["X"], "more")
		s.endAll()
		a.header["T"][0] = "changed"
		require.Equal(t, []string{"1", "2"}, b.header["X"])
		require.Equal(t, []string{"3"}, b.header["T"])
	})
}

func TestACookieIsNoTrailer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, httpcoalesce.Options{})
		a := s.ask(get("/"))
		s.run(0).play(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "Set-Cookie")
			w.WriteHeader(200)
			w.Header().Set("Set-Cookie", "a=b")
			w.Header().Set(http.TrailerPrefix+"Set-Cookie", "a=b")
		})
		s.endAll()
		require.Equal(t, http.Header{"Trailer": {"Set-Cookie"}}, a.header)
	})
}
