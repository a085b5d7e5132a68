package httpbalance

import (
	"cmp"
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/evenkeel-go/evenkeel/balance"
)

// loadHeader is Endpoint-Load-Metrics, in which a backend reports its load by ORCA, the
// Open Request Cost Aggregation of Envoy and gRPC. Its value is
//
//	TEXT cpu_utilization=0.3, named_metrics.in_flight=12
//	JSON {"cpu_utilization": 0.3, "named_metrics": {"in_flight": 12}}
//
// where TEXT may be left out and JSON may also be in camel case, as protocol buffers
// allow it.
const loadHeader = "Endpoint-Load-Metrics"

// loadOf returns the load that the header of a response reports, if it does. A report
// of which a number cannot be read is not used at all.
func loadOf(h http.Header) (balance.Load, bool) {
	v := h[loadHeader]
	switch len(v) {
	case 0:
		return balance.Load{}, false
	case 1:
		return parseLoad(v[0])
	}
	return parseLoad(strings.Join(v, ","))
}

func parseLoad(v string) (balance.Load, bool) {
	if text, ok := strings.CutPrefix(v, "JSON "); ok {
		return parseLoadJSON(text)
	}
	var m metrics
	v = strings.TrimPrefix(v, "TEXT ")
	for len(v) > 0 {
		var entry string
		entry, v, _ = strings.Cut(v, ",")
		at := strings.IndexAny(entry, "=:") // Envoy has used both
		if at < 0 {
			return balance.Load{}, false
		}
		f, err := strconv.ParseFloat(strings.TrimSpace(entry[at+1:]), 64)
		if err != nil {
			return balance.Load{}, false
		}
		m.set(strings.TrimSpace(entry[:at]), f)
	}
	return m.load()
}

func parseLoadJSON(text string) (balance.Load, bool) {
	var report struct {
		CPU        *float64           `json:"cpu_utilization"`
		CPUCamel   *float64           `json:"cpuUtilization"`
		App        *float64           `json:"application_utilization"`
		AppCamel   *float64           `json:"applicationUtilization"`
		Named      map[string]float64 `json:"named_metrics"`
		NamedCamel map[string]float64 `json:"namedMetrics"`
	}
	if json.Unmarshal([]byte(text), &report) != nil {
		return balance.Load{}, false
	}
	var m metrics
	if cpu := cmp.Or(report.CPU, report.CPUCamel); cpu != nil {
		m.set("cpu_utilization", *cpu)
	}
	if app := cmp.Or(report.App, report.AppCamel); app != nil {
		m.set("application_utilization", *app)
	}
	for _, named := range []map[string]float64{report.Named, report.NamedCamel} {
		for name, f := range named {
			m.set("named_metrics."+name, f)
		}
	}
	return m.load()
}

// metrics are the numbers of a report that are used.
type metrics struct {
	cpu, application, inFlight, latency float64
	bad                                 bool // a number is not one
	any                                 bool // one is there
}

func (m *metrics) set(name string, f float64) {
	if math.IsNaN(f) || math.IsInf(f, 0) || f < 0 {
		m.bad = true
		return
	}
	switch name {
	case "cpu_utilization":
		m.cpu = f
	case "application_utilization":
		m.application = f
	case "named_metrics.in_flight":
		m.inFlight = f
	case "named_metrics.latency":
		m.latency = f
	default:
		return
	}
	m.any = true
}

// load prefers the utilization that the application reports to that of the processor,
// as gRPC and Envoy do.
func (m *metrics) load() (balance.Load, bool) {
	if m.bad || !m.any {
		return balance.Load{}, false
	}
	l := balance.Load{Utilization: m.application}
	if m.application == 0 {
		l.Utilization = m.cpu
	}
	l.InFlight = int64(min(m.inFlight, 1<<53))
	l.Latency = time.Duration(min(m.latency*float64(time.Second), 1<<53))
	return l, true
}
