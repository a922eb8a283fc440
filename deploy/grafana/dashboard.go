package main

// The parts of Grafana's dashboard JSON that we use (its first schema, which every Grafana from 9 on reads
// and later ones migrate).
type dashboard struct {
	UID           string     `json:"uid"`
	Title         string     `json:"title"`
	Description   string     `json:"description"`
	Tags          []string   `json:"tags"`
	Timezone      string     `json:"timezone"`
	Editable      bool       `json:"editable"`
	SchemaVersion int        `json:"schemaVersion"`
	Refresh       string     `json:"refresh"`
	Time          span       `json:"time"`
	Templating    templating `json:"templating"`
	Links         []link     `json:"links"`
	Panels        []panel    `json:"panels"`
}

type span struct {
	From string `json:"from"`
	To   string `json:"to"`
}

type templating struct {
	List []variable `json:"list"`
}

type variable struct {
	Name       string  `json:"name"`
	Label      string  `json:"label"`
	Type       string  `json:"type"`
	Query      string  `json:"query"`
	Datasource *source `json:"datasource,omitempty"`
	Refresh    int     `json:"refresh,omitempty"` // 2: whenever the time range changes
	Multi      bool    `json:"multi"`
	IncludeAll bool    `json:"includeAll"`
	AllValue   string  `json:"allValue,omitempty"`
	Sort       int     `json:"sort,omitempty"` // 1: by name
}

type link struct {
	Type        string   `json:"type"`
	Title       string   `json:"title"`
	Tags        []string `json:"tags"`
	AsDropdown  bool     `json:"asDropdown"`
	IncludeVars bool     `json:"includeVars"`
	KeepTime    bool     `json:"keepTime"`
}

type source struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

type panel struct {
	ID          int         `json:"id"`
	Type        string      `json:"type"`
	Title       string      `json:"title"`
	Description string      `json:"description,omitempty"`
	GridPos     place       `json:"gridPos"`
	Datasource  *source     `json:"datasource,omitempty"`
	Targets     []target    `json:"targets,omitempty"`
	FieldConfig fieldConfig `json:"fieldConfig"`
	Options     any         `json:"options,omitempty"`
}

type place struct {
	H int `json:"h"`
	W int `json:"w"`
	X int `json:"x"`
	Y int `json:"y"`
}

type target struct {
	RefID        string `json:"refId"`
	Expr         string `json:"expr"`
	LegendFormat string `json:"legendFormat"`
	Instant      bool   `json:"instant,omitempty"`
}

type fieldConfig struct {
	Defaults  defaults `json:"defaults"`
	Overrides []any    `json:"overrides"`
}

type defaults struct {
	Unit       string      `json:"unit,omitempty"`
	Min        *float64    `json:"min,omitempty"`
	Max        *float64    `json:"max,omitempty"`
	Decimals   *int        `json:"decimals,omitempty"`
	Thresholds *thresholds `json:"thresholds,omitempty"`
	Custom     any         `json:"custom,omitempty"`
}

type thresholds struct {
	Mode  string `json:"mode"`
	Steps []step `json:"steps"`
}

type step struct {
	Color string   `json:"color"`
	Value *float64 `json:"value"`
}

type graphOptions struct {
	Legend  legend  `json:"legend"`
	Tooltip tooltip `json:"tooltip"`
}

type legend struct {
	DisplayMode string   `json:"displayMode"`
	Placement   string   `json:"placement"`
	Calcs       []string `json:"calcs"`
}

type tooltip struct {
	Mode string `json:"mode"`
	Sort string `json:"sort"`
}

type graphStyle struct {
	FillOpacity int      `json:"fillOpacity"`
	Stacking    stacking `json:"stacking"`
}

type stacking struct {
	Mode string `json:"mode"`
}

type statOptions struct {
	ReduceOptions reduce `json:"reduceOptions"`
	ColorMode     string `json:"colorMode"`
	GraphMode     string `json:"graphMode"`
}

type reduce struct {
	Calcs []string `json:"calcs"`
}

// gridWidth is that of Grafana.
const gridWidth = 24

// newDashboard has the variables that all of ours have: which Prometheus, which application.
func newDashboard(name, title, description string, more ...variable) *dashboard {
	return &dashboard{
		UID: "pawl-" + name, Title: title, Description: description, Tags: []string{"pawl"}, Timezone: "browser",
		SchemaVersion: 39, Refresh: "10s", Time: span{"now-1h", "now"},
		Templating: templating{append([]variable{
			{Name: "datasource", Label: "Prometheus", Type: "datasource", Query: "prometheus"},
			{Name: "job", Label: "Application", Type: "query", Query: "label_values(processor_build_info, job)", Datasource: prometheus(), Refresh: 2, Sort: 1},
		}, more...)},
		Links: []link{{Type: "dashboards", Title: "Pawl", Tags: []string{"pawl"}, IncludeVars: true, KeepTime: true}},
	}
}

func prometheus() *source { return &source{"prometheus", "${datasource}"} }

// query is an expression with the text of its legend.
type query struct{ expr, legend string }

// view is a panel before it has its place.
type view struct {
	title, description string
	unit               string // of Grafana: short, s, reqps, percentunit, bytes
	queries            []query
	stacked            bool
	alarm              float64 // of a figure: it is red from here on; 0 means never
	figure             bool    // one number instead of a graph
}

// row puts views beside each other below what is there, under a heading.
func (d *dashboard) row(heading string, height int, views ...view) {
	y := 0
	for _, p := range d.Panels {
		y = max(y, p.GridPos.Y+p.GridPos.H)
	}
	d.Panels = append(d.Panels, panel{
		ID: len(d.Panels) + 1, Type: "row", Title: heading, GridPos: place{1, gridWidth, 0, y}, FieldConfig: fieldConfig{Overrides: []any{}},
	})
	width := gridWidth / len(views)
	for i, v := range views {
		p := v.panel()
		p.ID, p.GridPos = len(d.Panels)+1, place{height, width, i * width, y + 1}
		d.Panels = append(d.Panels, p)
	}
}

func (v view) panel() panel {
	zero := 0.0
	p := panel{
		Type: "timeseries", Title: v.title, Description: v.description, Datasource: prometheus(),
		FieldConfig: fieldConfig{defaults{Unit: v.unit, Min: &zero}, []any{}},
	}
	for i, q := range v.queries {
		p.Targets = append(p.Targets, target{RefID: string(rune('A' + i)), Expr: q.expr, LegendFormat: q.legend, Instant: v.figure})
	}
	if v.figure {
		p.Type = "stat"
		p.Options = statOptions{reduce{[]string{"lastNotNull"}}, "background", "none"}
		steps := []step{{"green", nil}}
		if v.alarm > 0 {
			steps = append(steps, step{"red", &v.alarm})
		}
		p.FieldConfig.Defaults.Thresholds = &thresholds{"absolute", steps}
		return p
	}
	mode := "none"
	if v.stacked {
		mode = "normal"
	}
	p.FieldConfig.Defaults.Custom = graphStyle{10, stacking{mode}}
	p.Options = graphOptions{legend{"table", "bottom", []string{"lastNotNull", "max"}}, tooltip{"multi", "desc"}}
	return p
}

// figure is one number, red from alarm on.
func figure(title, unit, expr string, alarm float64) view {
	return view{title: title, unit: unit, figure: true, alarm: alarm, queries: []query{{expr, "{{job}}"}}}
}
