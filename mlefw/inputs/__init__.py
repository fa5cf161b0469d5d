"""Input maps: functions of the standardised features that the model gets as its inputs."""
