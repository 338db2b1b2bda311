"""What joins the layers for a person: command line, recipes, reports."""
