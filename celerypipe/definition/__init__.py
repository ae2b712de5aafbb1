"""What a pipeline says: nodes, links and limits as frozen values, and the order that they allow."""
