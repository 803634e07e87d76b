"""The command `micromegas`: reads flags and environment, starts services, asks questions. Contains no logic of
theirs."""
