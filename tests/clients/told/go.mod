module micromegas.tests/told

go 1.25.0
