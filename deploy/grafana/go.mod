module pawl/deploy/grafana

go 1.26.8
