package main

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"strings"
	"time"
)

//go:embed web
var webFiles embed.FS

// The page links to the lines that it speaks of, and works without a network: the
// program carries its own source.
//
//go:embed *.go
var sources embed.FS

// registerPage adds the live page, its stream of samples, its switches and the
// source.
func registerPage(mux *http.ServeMux, m *Main) error {
	web, err := fs.Sub(webFiles, "web")
	if err != nil {
		return err
	}
	index, err := renderIndex(web, m)
	if err != nil {
		return err
	}
	files := http.FileServerFS(web)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'self'; img-src data:")
		_, _ = w.Write(index)
	})
	mux.Handle("GET /app.js", files)
	mux.Handle("GET /style.css", files)
	mux.HandleFunc("GET /events", m.events)
	mux.HandleFunc("POST /switches/{name}", m.flip)
	mux.HandleFunc("GET /source/{file}", source)
	return nil
}

// card is what the page says of one pattern.
type card struct {
	Name, Title, Claim, Unit, Chart string
	File                            string
	Line                            int
}

// cards are the page's cards, with the line in the source where each pattern is
// used: the one that says so.
func cards(shards int) ([]card, error) {
	all := []card{
		{
			Name: "coalesce", Title: "Coalesce", Unit: "database reads per 100 page reads",
			Claim: "When many people open a channel at once, the database is read once for all of them.",
			Chart: "Page reads and database reads a second",
		},
		{
			Name: "shard", Title: "Shard", Unit: fmt.Sprintf("of %d shards asked per database read", shards),
			Claim: "The hash of a channel leads to the one shard that holds it; without the map a read must ask them all.",
			Chart: "Rows in each shard",
		},
		{
			Name: "outbox", Title: "Outbox", Unit: "webhooks lost",
			Claim: "A webhook commits with its message and is tried until the receiver takes it; without the outbox a failed one is lost.",
			Chart: "Webhooks waiting and lost",
		},
		{
			Name: "ratelimit", Title: "Rate limit", Unit: "posts refused a second",
			Claim: "Nobody writes more than a few messages a second, so one user with a script cannot crowd out the rest.",
			Chart: "Posts offered and stored a second",
		},
		{
			Name: "balance", Title: "Balance", Unit: "ms at most for 9 queries in 10",
			Claim: "The replica with the fewest queries under way gets the next, so a slow one gets little to do; taking turns, it gets a third.",
			Chart: "Share of the queries by replica, the third one slow",
		},
	}
	for i := range all {
		var err error
		if all[i].File, all[i].Line, err = findPattern(all[i].Name); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// findPattern finds the function whose comment says "pattern: name".
func findPattern(name string) (file string, line int, err error) {
	files, err := fs.Glob(sources, "*.go")
	if err != nil {
		return "", 0, err
	}
	for _, file := range files {
		text, err := sources.ReadFile(file)
		if err != nil {
			return "", 0, err
		}
		for i, l := range strings.Split(string(text), "\n") {
			if l == "// pattern: "+name {
				return file, i + 2, nil // the line after the comment
			}
		}
	}
	return "", 0, fmt.Errorf("no line of the source says %q", "pattern: "+name)
}

func renderIndex(web fs.FS, m *Main) ([]byte, error) {
	t, err := template.ParseFS(web, "index.html")
	if err != nil {
		return nil, err
	}
	all, err := cards(m.store.shards.Len())
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, map[string]any{"Cards": all, "Load": m.Config.Load})
	return b.Bytes(), err
}

// events streams the samples as server-sent events, one each time there is a new
// one, until the client or the service ends.
func (m *Main) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	tick := time.NewTicker(sampleEvery / 2)
	defer tick.Stop()
	for seq := int64(0); ; {
		if s := m.metrics.latest.Load(); s != nil && s.Seq != seq {
			seq = s.Seq
			text, err := json.Marshal(s)
			if err != nil {
				return
			}
			// A client that does not read must not hold up the end of the service.
			_ = out.SetWriteDeadline(time.Now().Add(5 * time.Second))
			if _, err := fmt.Fprintf(w, "event: sample\ndata: %s\n\n", text); err != nil || out.Flush() != nil {
				return
			}
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		case <-m.sampling.done:
			return
		}
	}
}

// flip answers POST /switches/{name}?on=true.
func (m *Main) flip(w http.ResponseWriter, r *http.Request) {
	name, on := r.PathValue("name"), r.URL.Query().Get("on")
	if on != "true" && on != "false" {
		fail(w, http.StatusBadRequest, fmt.Sprintf("on is %q, expected true or false", on))
		return
	}
	if !m.switches.set(name, on == "true") {
		fail(w, http.StatusNotFound, fmt.Sprintf("no switch is called %q", name))
		return
	}
	if name == "slow" {
		m.SetSlow(on == "true")
	}
	w.WriteHeader(http.StatusNoContent)
}

var sourcePage = template.Must(template.New("source").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{.File}}</title><link rel="icon" href="data:,"><link rel="stylesheet" href="/style.css">
<body class="source"><h1>{{.File}}</h1>
<pre>{{range $i, $l := .Lines}}<a id="L{{$i}}" href="#L{{$i}}" class="line"><span class="n">{{$i}}</span> {{$l}}
</a>{{end}}</pre></body></html>`))

// source answers GET /source/{file} with a file of this program.
func source(w http.ResponseWriter, r *http.Request) {
	text, err := sources.ReadFile(r.PathValue("file"))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	lines := make(map[int]string) // numbered from 1; a template walks it in order
	for i, l := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		lines[i+1] = l
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = sourcePage.Execute(w, map[string]any{"File": r.PathValue("file"), "Lines": lines})
}
