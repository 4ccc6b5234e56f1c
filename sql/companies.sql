-- One row a company, with the plan and the monthly revenue of its people.
WITH revenue AS (
    SELECT
        c.company_id,
        sum(s.mrr) AS mrr,
        arg_max(s.plan, (s.mrr, s.id)) AS plan
    FROM raw.subscriptions AS s
    JOIN raw.customers AS c ON c.id = s.customer_id
    WHERE s.status = 'active' AND c.company_id IS NOT NULL
    GROUP BY c.company_id
)

SELECT
    'C-' || lpad(CAST(c.id AS VARCHAR), 6, '0') AS company_ref,
    c.name,
    c.domain,
    c.employees,
    CAST(coalesce(r.mrr, 0) AS DECIMAL(14, 2)) AS mrr,
    coalesce(r.mrr, 0) > 0 AS is_customer,
    c.founded_on,
    r.plan
FROM raw.companies AS c
LEFT JOIN revenue AS r ON r.company_id = c.id
