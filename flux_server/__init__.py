"""What a server is started with, and the model that comes along; found here in a
checkout, where these are links to its top, and in what a wheel installs."""
