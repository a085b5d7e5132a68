package httpcoalesce_test

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/evenkeel-go/evenkeel/coalesce/httpcoalesce"
)

// nobody is a client that costs nothing.
type nobody struct{ header http.Header }

func (n *nobody) Header() http.Header         { return n.header }
func (n *nobody) WriteHeader(int)             {}
func (n *nobody) Write(p []byte) (int, error) { return len(p), nil }

// BenchmarkServe compares a request through a Handler with the wrapped handler alone.
// With keys=1 all processors ask for one key, and with keys=many each request has its
// own, so that nothing is saved. pass is a request that is not collapsed.
func BenchmarkServe(b *testing.B) {
	body := make([]byte, 600)
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = []string{"text/plain"}
		_, _ = w.Write(body)
	})
	for _, impl := range []string{"floor", "collapse", "pass"} {
		for _, keys := range []string{"1", "many"} {
			b.Run("impl="+impl+"/keys="+keys, func(b *testing.B) {
				var h http.Handler = page
				if impl != "floor" {
					var err error
					h, err = httpcoalesce.New(page, httpcoalesce.Options{})
					require.NoError(b, err)
				}
				var n atomic.Int64
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					r := get("/", "Accept: text/html", "User-Agent: x")
					if impl == "pass" {
						r.Header.Set("Cookie", "a=b")
					}
					if keys == "many" {
						r.URL.Path = "/" + strconv.FormatInt(n.Add(1), 10)
					}
					w := &nobody{header: http.Header{}}
					for pb.Next() {
						clear(w.header)
						h.ServeHTTP(w, r)
					}
				})
			})
		}
	}
}
