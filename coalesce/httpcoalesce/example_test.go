package httpcoalesce_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"sync"

	"github.com/evenkeel-go/evenkeel/coalesce/httpcoalesce"
)

// Ten people open a page in the same moment, and the page is made once.
func Example() {
	var summaries *httpcoalesce.Handler
	summary := func(w http.ResponseWriter, r *http.Request) {
		for summaries.Stats().Joined < 9 { // a slow query
			runtime.Gosched()
		}
		_, _ = fmt.Fprintf(w, "%s is a burrowing rodent.", r.PathValue("title"))
	}
	mux := http.NewServeMux()
	summaries, err := httpcoalesce.New(http.HandlerFunc(summary), httpcoalesce.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	mux.Handle("GET /page/summary/{title}", summaries)
	server := httptest.NewServer(mux)
	defer server.Close()

	bodies := make([]string, 10)
	var wg sync.WaitGroup
	for i := range bodies {
		wg.Go(func() { bodies[i] = read(server, "/page/summary/Gopher") })
	}
	wg.Wait()
	fmt.Println(slices.Compact(bodies))
	fmt.Println("requests:", summaries.Stats().Requests, "executions:", summaries.Stats().Executions)
	// Output:
	// [Gopher is a burrowing rodent.]
	// requests: 10 executions: 1
}

func read(server *httptest.Server, path string) string {
	resp, err := server.Client().Get(server.URL + path)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(body)
}

// With a principal, requests of one user share responses, also if they come with
// cookies; those of two users do not. A user who is not known is not collapsed.
func ExampleOptions_principal() {
	sessions := map[string]string{"s1": "alice", "s2": "bob"}
	feed := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "the feed of "+r.Header.Get("Cookie"))
	})
	h, err := httpcoalesce.New(feed, httpcoalesce.Options{
		Principal: func(r *http.Request) (string, bool) {
			c, err := r.Cookie("session")
			if err != nil {
				return "", false
			}
			user, known := sessions[c.Value]
			return user, known
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, session := range []string{"s1", "s2", "s3"} {
		r := httptest.NewRequest("GET", "/feed", nil)
		r.AddCookie(&http.Cookie{Name: "session", Value: session})
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		fmt.Println(w.Body)
	}
	fmt.Println("passed:", h.Stats().Passed)
	// Output:
	// the feed of session=s1
	// the feed of session=s2
	// the feed of session=s3
	// passed: 1
}

// What is for one person only is not shared, and its key is remembered: later requests
// do not wait for each other.
func ExampleHandler_Stats() {
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "private")
		_, _ = io.WriteString(w, "for your eyes only")
	})
	h, err := httpcoalesce.New(page, httpcoalesce.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 5 {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	}
	st := h.Stats()
	fmt.Printf("%d requests, %d executions, %d of them without waiting\n", st.Requests, st.Executions, st.Passed)
	// Output:
	// 5 requests, 5 executions, 4 of them without waiting
}
